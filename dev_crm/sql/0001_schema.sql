-- Tickets, articles and incidents have readable ids, so that people and models can cite them; contacts
-- and messages have UUIDs.

CREATE TABLE crm.contacts (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    phone text,
    company text NOT NULL,
    role text NOT NULL,
    language text NOT NULL CHECK (language IN ('en', 'pt')),
    timezone text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE crm.subscriptions (
    contact_id uuid PRIMARY KEY REFERENCES crm.contacts ON DELETE CASCADE,
    plan text NOT NULL CHECK (plan IN ('Free', 'Starter', 'Pro', 'Enterprise')),
    product_version text NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'trialing', 'past_due', 'cancelled')),
    seats integer NOT NULL CHECK (seats > 0),
    -- {"contacts": {"used": 10, "limit": 500}, ...}; a limit of null means unlimited.
    usage jsonb NOT NULL,
    monthly_amount numeric(10, 2) NOT NULL CHECK (monthly_amount >= 0),
    currency text NOT NULL,
    billing_cycle text NOT NULL CHECK (billing_cycle IN ('none', 'monthly', 'yearly')),
    started_on date NOT NULL,
    renews_on date
);

CREATE TABLE crm.tickets (
    id text PRIMARY KEY,
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    language text NOT NULL CHECK (language IN ('en', 'pt')),
    title text NOT NULL,
    description text NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'pending', 'resolved')),
    severity text NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    resolution text,
    created_at timestamptz NOT NULL,
    resolved_at timestamptz,
    search tsvector NOT NULL GENERATED ALWAYS AS (
        CASE language
            WHEN 'pt' THEN
                to_tsvector('portuguese', title || ' ' || description || ' ' || coalesce(resolution, ''))
            ELSE
                to_tsvector('english', title || ' ' || description || ' ' || coalesce(resolution, ''))
        END
    ) STORED,
    CHECK ((status = 'resolved') = (resolved_at IS NOT NULL))
);

CREATE INDEX tickets_of_contact ON crm.tickets (contact_id, created_at DESC);

CREATE TABLE crm.articles (
    id text PRIMARY KEY,
    title text NOT NULL,
    body text NOT NULL,
    tags jsonb NOT NULL CHECK (jsonb_typeof(tags) = 'array'),
    language text NOT NULL CHECK (language IN ('en', 'pt')),
    updated_at timestamptz NOT NULL,
    search tsvector NOT NULL GENERATED ALWAYS AS (
        CASE language
            WHEN 'pt' THEN
                setweight(to_tsvector('portuguese', title), 'A')
                || setweight(to_tsvector('portuguese', body), 'B')
                || setweight(to_tsvector('portuguese', tags), 'C')
            ELSE
                setweight(to_tsvector('english', title), 'A')
                || setweight(to_tsvector('english', body), 'B')
                || setweight(to_tsvector('english', tags), 'C')
        END
    ) STORED
);

CREATE INDEX articles_search ON crm.articles USING gin (search);

CREATE TABLE crm.components (
    name text PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('operational', 'degraded', 'outage')),
    since timestamptz NOT NULL
);

CREATE TABLE crm.incidents (
    id text PRIMARY KEY,
    title text NOT NULL,
    component text NOT NULL REFERENCES crm.components,
    status text NOT NULL CHECK (status IN ('investigating', 'identified', 'monitoring', 'resolved')),
    started_at timestamptz NOT NULL,
    resolved_at timestamptz,
    summary text NOT NULL,
    CHECK ((status = 'resolved') = (resolved_at IS NOT NULL))
);

CREATE TABLE crm.messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    text text NOT NULL,
    from_me boolean NOT NULL,
    source text NOT NULL,
    author text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX messages_of_contact ON crm.messages (contact_id, created_at DESC);

CREATE SEQUENCE crm.engineering_ticket_number START 1001;

CREATE TABLE crm.engineering_tickets (
    id text PRIMARY KEY DEFAULT 'ENG-' || nextval('crm.engineering_ticket_number'),
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    title text NOT NULL,
    description text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    status text NOT NULL DEFAULT 'open',
    source text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX engineering_tickets_of_contact ON crm.engineering_tickets (contact_id, created_at DESC);

-- One row per request with an Idempotency-Key. Status and body are null only inside the transaction that
-- is still handling the request, where no other transaction sees them.
CREATE TABLE crm.idempotency_keys (
    endpoint text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status integer,
    body text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint, key)
);

-- Returns a query that matches exactly this lexeme, whatever characters it contains.
CREATE FUNCTION crm.term(lexeme text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery;

-- Returns a query that matches any of the words; null when all of them are stop words.
CREATE FUNCTION crm.any_of(config regconfig, words text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT string_agg(crm.term(lexeme)::text, ' | ')::tsquery
    FROM unnest(tsvector_to_array(to_tsvector(config, words))) AS lexeme
);

CREATE TABLE crm.profiles (
    contact_id uuid PRIMARY KEY REFERENCES crm.contacts ON DELETE CASCADE,
    company_size integer CHECK (company_size BETWEEN 1 AND 10000000),
    industry text,
    use_case text,
    team_size integer CHECK (team_size BETWEEN 1 AND 10000000)
);

CREATE TABLE crm.opportunities (
    id text PRIMARY KEY,
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    title text NOT NULL,
    stage text NOT NULL CHECK (stage IN (
        'qualification', 'needs', 'solution', 'objections', 'proposal', 'negotiation',
        'closed_won', 'closed_lost'
    )),
    value numeric(12, 2) NOT NULL CHECK (value >= 0),
    currency text NOT NULL,
    -- {"budget": text, "authority": text, "need": text, "timeline": text}; a missing key means not known.
    qualification jsonb NOT NULL CHECK (jsonb_typeof(qualification) = 'object'),
    needs jsonb NOT NULL CHECK (jsonb_typeof(needs) = 'array'),
    solution text,
    -- [{"text": text, "answer": text or null}, ...]
    objections jsonb NOT NULL CHECK (jsonb_typeof(objections) = 'array'),
    proposal text,
    terms text,
    next_action text,
    close_reason text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1 CHECK (version > 0),
    -- Referenced by follow_ups, so that a follow-up can only name an opportunity of its own contact.
    UNIQUE (contact_id, id)
);

CREATE INDEX opportunities_of_contact ON crm.opportunities (contact_id, created_at DESC);

CREATE TABLE crm.orders (
    id text PRIMARY KEY,
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    item text NOT NULL,
    status text NOT NULL CHECK (status IN ('processing', 'shipped', 'delivered', 'delayed', 'cancelled')),
    placed_at timestamptz NOT NULL,
    expected_at timestamptz,
    tracking text
);

CREATE INDEX orders_of_contact ON crm.orders (contact_id, placed_at DESC);

CREATE TABLE crm.invoices (
    id text PRIMARY KEY,
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    number text NOT NULL UNIQUE,
    status text NOT NULL CHECK (status IN ('open', 'paid', 'overdue', 'refunded')),
    amount numeric(12, 2) NOT NULL CHECK (amount >= 0),
    currency text NOT NULL,
    issued_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    paid_at timestamptz,
    CHECK ((status IN ('paid', 'refunded')) = (paid_at IS NOT NULL))
);

CREATE INDEX invoices_of_contact ON crm.invoices (contact_id, issued_at DESC);

CREATE TABLE crm.follow_ups (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    due_at timestamptz NOT NULL,
    subject text NOT NULL,
    note text NOT NULL,
    opportunity_id text,
    source text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (contact_id, opportunity_id) REFERENCES crm.opportunities (contact_id, id) ON DELETE CASCADE
);

CREATE INDEX follow_ups_of_contact ON crm.follow_ups (contact_id, created_at DESC);

CREATE TABLE crm.handoffs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    contact_id uuid NOT NULL REFERENCES crm.contacts ON DELETE CASCADE,
    team text NOT NULL,
    reason text NOT NULL,
    summary text NOT NULL,
    source text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX handoffs_of_contact ON crm.handoffs (contact_id, created_at DESC);
