-- Notes of agents. How long one is kept is not in its row but in the settings, so that a changed setting
-- counts for what is there already.
CREATE TABLE memory.items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    type text NOT NULL CHECK (type IN ('short_term', 'working', 'long_term', 'shared')),
    agent text NOT NULL,
    text text NOT NULL,
    -- Of the text: the same note of an agent is kept once.
    digest bytea NOT NULL,
    search tsvector NOT NULL,
    remembered_at timestamptz NOT NULL,
    uses bigint NOT NULL DEFAULT 0,
    used_at timestamptz NOT NULL,
    UNIQUE (scope, type, agent, digest)
);
CREATE INDEX items_by_age ON memory.items (type, remembered_at);
