-- Effects on the outside, recorded before and after. They go with their thread.
CREATE TABLE ledger.effects (
    tenant text NOT NULL,
    key text NOT NULL,
    thread_id text NOT NULL,
    -- The run that tried last.
    run_id text NOT NULL,
    action text NOT NULL,
    arguments_hash bytea NOT NULL,
    -- begun: its fate is not known; failed: the other side refused it.
    state text NOT NULL CHECK (state IN ('begun', 'finished', 'failed')),
    attempts integer NOT NULL DEFAULT 1,
    -- Not jsonb, which takes no NUL: it is given back as it was.
    outcome json,
    begun_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    PRIMARY KEY (tenant, key),
    CHECK ((state = 'finished') = (outcome IS NOT NULL))
);
CREATE INDEX effects_by_thread ON ledger.effects (thread_id);

-- The audit. An entry is written once; a moment later it is given its place in its tenant's chain, once.
CREATE TABLE ledger.entries (
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
CREATE INDEX entries_by_thread ON ledger.entries (tenant, thread_id, id);
CREATE INDEX entries_not_linked ON ledger.entries (id) WHERE hash IS NULL;

-- What retention cut off the beginning of a chain: up to which place, and the hash the rest goes on from.
CREATE TABLE ledger.seals (
    tenant text NOT NULL,
    position bigint NOT NULL,
    hash bytea NOT NULL,
    rows bigint NOT NULL,
    oldest timestamptz NOT NULL,
    newest timestamptz NOT NULL,
    cut_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, position)
);

CREATE FUNCTION ledger.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'entries' THEN
        -- An entry takes its place in the chain, and nothing else of it changes.
        IF TG_OP = 'UPDATE' AND OLD.hash IS NULL AND NEW.hash IS NOT NULL
            AND to_jsonb(NEW) - '{position,hash}'::text[] = to_jsonb(OLD) - '{position,hash}'::text[]
        THEN
            RETURN NEW;
        END IF;
        -- What goes has been sealed.
        IF TG_OP = 'DELETE' AND EXISTS (
            SELECT FROM ledger.seals WHERE tenant = OLD.tenant AND position >= OLD.position
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'ledger.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.entries
    FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.seals
    FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON ledger.entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON ledger.seals
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.append_only();

-- Requests that came with a key, so that one that comes again finds the first one's run.
CREATE TABLE ledger.requests (
    tenant text NOT NULL,
    key_hash bytea NOT NULL,
    id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    -- Empty where the request finds its thread by other means.
    thread_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key_hash)
);
CREATE INDEX requests_by_thread ON ledger.requests (thread_id) WHERE thread_id <> '';
CREATE INDEX requests_by_expiry ON ledger.requests (expires_at);
