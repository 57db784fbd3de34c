-- API keys. Of the key itself only a digest is stored.
CREATE TABLE auth.api_keys (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    scopes text[] NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- To the minute, so that a busy key does not write a row for each request.
    last_used_at timestamptz,
    -- The successor, after a rotation.
    rotated_to text REFERENCES auth.api_keys
);
CREATE INDEX api_keys_by_tenant ON auth.api_keys (tenant, created_at);

-- Each tenant's current rate-limit window. Unlogged: after a crash of the server, counting starts again.
CREATE UNLOGGED TABLE auth.request_counts (
    name text PRIMARY KEY,
    count bigint NOT NULL,
    ends_at timestamptz NOT NULL
);
