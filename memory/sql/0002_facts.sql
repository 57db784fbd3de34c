-- A line is what has one value at a time: a property of a subject; of a property that may have several
-- values, each value; likewise with relations of nodes. Its key is the digest of their names.
CREATE TABLE memory.lines (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    key bytea NOT NULL,
    UNIQUE (scope, key)
);

-- Which message said what about a line: what is said again by the same message is known by it. `origin` is
-- that of the row it led to; the confidence of a fact is made of the statements that it holds.
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

-- Versions of facts. A row is written once; later only superseded_at and superseded_by are set, once.
-- Versions of one fact share their origin. A row whose valid time is empty says that the fact had ended by
-- then, where it was not known before.
--
-- The constraint: at no moment of transaction time are two values of a line believed for one moment of valid
-- time. It spans both axes, which UNIQUE (..., WITHOUT OVERLAPS) of PostgreSQL 18 does not; and a line's
-- number as a range of one makes it work without btree_gist, on every version and server alike.
CREATE TABLE memory.facts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    line bigint NOT NULL REFERENCES memory.lines ON DELETE CASCADE,
    origin uuid NOT NULL DEFAULT gen_random_uuid(),
    subject text NOT NULL,
    -- The subject as it is compared.
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

-- Edges likewise. Nothing wrote any before.
ALTER TABLE memory.edges
    ADD COLUMN line bigint NOT NULL REFERENCES memory.lines ON DELETE CASCADE,
    ADD COLUMN origin uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD CONSTRAINT edges_one_value_at_a_time EXCLUDE USING gist (
        int8range(line, line, '[]') WITH =,
        tstzrange(valid_from, valid_to) WITH &&,
        tstzrange(recorded_at, superseded_at) WITH &&
    );
CREATE INDEX edges_by_line ON memory.edges (line) WHERE superseded_at IS NULL;
CREATE INDEX edges_by_origin ON memory.edges (origin);
