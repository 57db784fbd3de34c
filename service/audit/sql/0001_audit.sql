-- Effects on the outside, recorded before and after they are made. They are erased with their thread.
CREATE TABLE audit.effects (
    tenant text NOT NULL,
    key text NOT NULL,
    thread_id text NOT NULL,
    -- The run that tried last.
    run_id text NOT NULL,
    action text NOT NULL,
    arguments_hash bytea NOT NULL,
    -- begun: its outcome is not known; failed: the other side refused it.
    state text NOT NULL CHECK (state IN ('begun', 'finished', 'failed')),
    attempts integer NOT NULL DEFAULT 1,
    -- Not jsonb, which takes no NUL: the outcome is returned exactly as it was.
    outcome json,
    begun_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    PRIMARY KEY (tenant, key),
    CHECK ((state = 'finished') = (outcome IS NOT NULL))
);
CREATE INDEX effects_by_thread ON audit.effects (thread_id);

-- The audit trail. An entry is written once; a moment later it is linked into its tenant's chain, once.
CREATE TABLE audit.entries (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    user_id text NOT NULL,
    key_id text NOT NULL,
    thread_id text NOT NULL,
    run_id text NOT NULL,
    action text NOT NULL,
    tool text NOT NULL,
    effect_key text NOT NULL,
    arguments jsonb NOT NULL,
    outcome text NOT NULL,
    details jsonb NOT NULL,
    position bigint,
    hash bytea,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, position),
    CHECK ((position IS NULL) = (hash IS NULL))
);
CREATE INDEX entries_by_time ON audit.entries (tenant, action, at);
CREATE INDEX entries_by_thread ON audit.entries (tenant, thread_id, id);
CREATE INDEX entries_not_linked ON audit.entries (id) WHERE hash IS NULL;

-- What was cut off the start of a chain: up to which position, and the hash the rest continues from.
CREATE TABLE audit.seals (
    tenant text NOT NULL,
    position bigint NOT NULL,
    hash bytea NOT NULL,
    rows bigint NOT NULL,
    oldest timestamptz NOT NULL,
    newest timestamptz NOT NULL,
    cut_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, position)
);

CREATE FUNCTION audit.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'entries' THEN
        -- Linking sets an entry's position and hash, and changes nothing else.
        IF TG_OP = 'UPDATE' AND OLD.hash IS NULL AND NEW.hash IS NOT NULL
            AND to_jsonb(NEW) - '{position,hash}'::text[] = to_jsonb(OLD) - '{position,hash}'::text[]
        THEN
            RETURN NEW;
        END IF;
        -- Only sealed entries may be deleted.
        IF TG_OP = 'DELETE' AND EXISTS (
            SELECT FROM audit.seals WHERE tenant = OLD.tenant AND position >= OLD.position
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.entries
    FOR EACH ROW EXECUTE FUNCTION audit.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.seals
    FOR EACH ROW EXECUTE FUNCTION audit.append_only();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON audit.entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit.append_only();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON audit.seals
    FOR EACH STATEMENT EXECUTE FUNCTION audit.append_only();

-- Idempotency keys of requests, so that a repeated request finds the first one's run.
CREATE TABLE audit.request_keys (
    tenant text NOT NULL,
    key_hash bytea NOT NULL,
    id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    -- Empty where the request finds its thread by other means.
    thread_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key_hash)
);
CREATE INDEX request_keys_by_thread ON audit.request_keys (thread_id) WHERE thread_id <> '';
CREATE INDEX request_keys_by_expiry ON audit.request_keys (expires_at);
