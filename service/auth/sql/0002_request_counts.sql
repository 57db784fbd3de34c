-- Requests counted in the window each tenant is in. Unlogged: after a crash of the server counting begins anew.
CREATE UNLOGGED TABLE identity.request_counts (
    name text PRIMARY KEY,
    count bigint NOT NULL,
    ends_at timestamptz NOT NULL
);
