-- What sales and service keep of a contact: who they are as a customer, what they may buy, what they
-- bought, what they owe, and what is to be done for them.

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
    -- {"budget": text, "authority": text, "need": text, "timeline": text}; what is not there is not known.
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
    -- What the foreign key of follow-ups needs: an opportunity of the same contact.
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
