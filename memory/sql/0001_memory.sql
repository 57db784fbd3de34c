-- A scope is one contact of one tenant. Every other table refers to it and every query starts from it, so that
-- nothing is found, counted or weighed across contacts.
CREATE TABLE memory.scopes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    contact_id text NOT NULL,
    -- Whether the scope has too many vectors to compare one by one.
    large boolean NOT NULL DEFAULT false,
    UNIQUE (tenant, contact_id)
);

-- Messages of conversations. seq keeps the order of messages that arrived with the same time.
CREATE TABLE memory.messages (
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    id text NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    role text NOT NULL CHECK (role IN ('customer', 'agent', 'human', 'note')),
    text text NOT NULL,
    at timestamptz NOT NULL,
    session_id text NOT NULL,
    channel_id text NOT NULL,
    PRIMARY KEY (scope, id)
);
CREATE INDEX messages_by_time ON memory.messages (scope, at DESC, seq DESC);
CREATE INDEX messages_by_session ON memory.messages (scope, session_id, at DESC, seq DESC);

-- Units are what a search finds: a message, or a part of a long one. The lexemes in `search` are labelled A for the
-- text itself, B for its date, C for the previous unit of the session and D for the next one.
CREATE TABLE memory.units (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    message bigint NOT NULL REFERENCES memory.messages (seq) ON DELETE CASCADE,
    part integer NOT NULL,
    session_id text NOT NULL,
    at timestamptz NOT NULL,
    configuration regconfig NOT NULL,
    date text NOT NULL,
    text text NOT NULL,
    -- The text as it is indexed: accented words are repeated without their accents.
    words text NOT NULL,
    -- Names, addresses and numbers of the text, for a search that tolerates misspelling.
    identifiers text NOT NULL,
    search tsvector NOT NULL,
    length real NOT NULL,
    UNIQUE (message, part)
);
CREATE INDEX units_by_session ON memory.units (scope, session_id, at, message, part);
CREATE INDEX units_by_time ON memory.units (scope, at DESC, message DESC, part DESC);

-- Embedding models. One of them is current: queries are embedded with it.
CREATE TABLE memory.models (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    dimensions integer NOT NULL CHECK (dimensions > 0),
    current boolean NOT NULL DEFAULT false,
    UNIQUE (name, dimensions)
);
CREATE UNIQUE INDEX models_current ON memory.models (current) WHERE current;

-- Units that wait for a vector. A row is written together with its unit and deleted together with the arrival of
-- the vector, so a crash between the two loses nothing. leased_until lets several services share the work.
CREATE TABLE memory.unembedded (
    unit bigint PRIMARY KEY REFERENCES memory.units ON DELETE CASCADE,
    leased_until timestamptz NOT NULL DEFAULT '-infinity'
);

-- A line is whatever has one value at a time: a property of a subject, or, where a property may have several
-- values, each single value; likewise for relations between nodes. Its key is a digest of their names.
CREATE TABLE memory.lines (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    key bytea NOT NULL,
    UNIQUE (scope, key)
);

-- Which message stated what about a line, so that a repetition by the same message is recognised. `origin` is that
-- of the row it led to. The confidence of a fact is computed from the statements in its favour.
CREATE TABLE memory.statements (
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    line bigint NOT NULL REFERENCES memory.lines ON DELETE CASCADE,
    source_message_id text NOT NULL,
    value bytea NOT NULL,
    ended boolean NOT NULL,
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    origin uuid NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (line, source_message_id, value, ended)
);
CREATE INDEX statements_by_origin ON memory.statements (origin);
CREATE INDEX statements_by_message ON memory.statements (scope, source_message_id);

-- Versions of facts. Valid time is when a fact held; transaction time (recorded_at to superseded_at) is when the
-- memory believed it. A row is written once; only superseded_at and superseded_by are set later, once. Versions of
-- one fact share their origin. A row whose valid time is empty means that the fact had ended by then, although it
-- was not known before.
--
-- The constraint: at no moment of transaction time are two values of a line believed for one moment of valid time.
-- It spans both axes, which UNIQUE (..., WITHOUT OVERLAPS) of PostgreSQL 18 cannot express. Writing the line's id as
-- a range of one makes it work without the extension btree_gist, on every server.
CREATE TABLE memory.facts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    line bigint NOT NULL REFERENCES memory.lines ON DELETE CASCADE,
    origin uuid NOT NULL DEFAULT gen_random_uuid(),
    subject text NOT NULL,
    -- The subject in the form in which subjects are compared.
    subject_key text NOT NULL,
    predicate text NOT NULL,
    object text NOT NULL,
    scope_key text NOT NULL,
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    source_message_id text NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    recorded_at timestamptz NOT NULL,
    superseded_at timestamptz,
    superseded_by text,
    -- The fact's words in both languages. Every fact is about the contact, so that subject says nothing.
    search tsvector NOT NULL GENERATED ALWAYS AS (
        to_tsvector('english', CASE WHEN subject_key = 'contact' THEN '' ELSE subject END
                               || ' ' || translate(predicate, '_', ' ') || ' ' || scope_key || ' ' || object)
        || to_tsvector('portuguese', CASE WHEN subject_key = 'contact' THEN '' ELSE subject END
                                     || ' ' || translate(predicate, '_', ' ') || ' ' || scope_key || ' ' || object)
    ) STORED,
    CHECK (valid_to >= valid_from),
    CHECK (superseded_at > recorded_at),
    CHECK ((superseded_at IS NULL) = (superseded_by IS NULL)),
    CONSTRAINT facts_one_value_at_a_time EXCLUDE USING gist (
        int8range(line, line, '[]') WITH =,
        tstzrange(valid_from, valid_to) WITH &&,
        tstzrange(recorded_at, superseded_at) WITH &&
    )
);
CREATE INDEX facts_by_subject ON memory.facts (scope, subject_key, predicate);
CREATE INDEX facts_by_message ON memory.facts (scope, source_message_id);
CREATE INDEX facts_by_line ON memory.facts (line) WHERE superseded_at IS NULL;
CREATE INDEX facts_by_origin ON memory.facts (origin);

-- The contact's graph: nodes, and versions of the edges between them, which are kept like those of facts.
CREATE TABLE memory.nodes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    kind text NOT NULL,
    key text NOT NULL,
    label text NOT NULL,
    UNIQUE (scope, kind, key)
);
CREATE TABLE memory.edges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    line bigint NOT NULL REFERENCES memory.lines ON DELETE CASCADE,
    origin uuid NOT NULL DEFAULT gen_random_uuid(),
    source bigint NOT NULL REFERENCES memory.nodes ON DELETE CASCADE,
    type text NOT NULL,
    target bigint NOT NULL REFERENCES memory.nodes ON DELETE CASCADE,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    source_message_id text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,
    superseded_by text,
    CHECK (valid_to IS NULL OR valid_to >= valid_from),
    CHECK (superseded_at IS NULL OR superseded_at >= recorded_at),
    CONSTRAINT edges_one_value_at_a_time EXCLUDE USING gist (
        int8range(line, line, '[]') WITH =,
        tstzrange(valid_from, valid_to) WITH &&,
        tstzrange(recorded_at, superseded_at) WITH &&
    )
);
CREATE INDEX edges_by_source ON memory.edges (source);
CREATE INDEX edges_by_target ON memory.edges (target);
CREATE INDEX edges_by_message ON memory.edges (scope, source_message_id);
CREATE INDEX edges_by_line ON memory.edges (line) WHERE superseded_at IS NULL;
CREATE INDEX edges_by_origin ON memory.edges (origin);

-- Notes of agents. How long a note is kept is not in its row but in the settings, so that a changed setting applies
-- to existing notes.
CREATE TABLE memory.notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    type text NOT NULL CHECK (type IN ('short_term', 'working', 'long_term', 'shared')),
    agent text NOT NULL,
    text text NOT NULL,
    -- Of the text: an agent's note is kept once.
    digest bytea NOT NULL,
    search tsvector NOT NULL,
    remembered_at timestamptz NOT NULL,
    uses bigint NOT NULL DEFAULT 0,
    used_at timestamptz NOT NULL,
    UNIQUE (scope, type, agent, digest)
);
CREATE INDEX notes_by_age ON memory.notes (type, remembered_at);
