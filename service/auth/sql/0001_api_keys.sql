-- An API key as it is kept: without the key.
CREATE TABLE identity.api_keys (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    scopes text[] NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- To the minute, so that a busy key does not write a row with each look.
    last_used_at timestamptz,
    -- The key that took its place.
    rotated_to text REFERENCES identity.api_keys
);
CREATE INDEX api_keys_by_tenant ON identity.api_keys (tenant, created_at);
