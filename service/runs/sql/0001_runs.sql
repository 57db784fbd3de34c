-- Threads, and whose they are. A thread has a row from the first thing that takes its id: a run, a session or a
-- workflow.
CREATE TABLE runs.threads (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    -- The graph of its runs; null: nothing has run on it yet.
    graph text,
    -- What its last run left behind. Whether it is busy is known from its runs.
    status text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'interrupted', 'error')),
    metadata jsonb NOT NULL DEFAULT '{}',
    -- The person who has taken the conversation over from the agents, and since when; empty: nobody.
    held_by text NOT NULL DEFAULT '',
    held_at timestamptz,
    -- So long after its last change it is deleted, or its history; null: never.
    ttl_minutes float8,
    ttl_strategy text CHECK (ttl_strategy IN ('delete', 'keep_latest')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX threads_expiring ON runs.threads (updated_at) WHERE ttl_minutes IS NOT NULL;
CREATE INDEX threads_by_tenant ON runs.threads (tenant, created_at DESC, id);
CREATE INDEX threads_held ON runs.threads (tenant) WHERE held_by <> '';
CREATE INDEX threads_by_metadata ON runs.threads USING gin (metadata jsonb_path_ops) WHERE metadata <> '{}';

-- A run is a row before it is a task of a process. A claim assigns it to one replica, which renews the claim while
-- it executes the run, or while a caller of it waits for the run's turn.
CREATE TABLE runs.runs (
    id uuid PRIMARY KEY,
    thread_id text NOT NULL,
    tenant text NOT NULL,
    user_id text NOT NULL,
    graph text NOT NULL,
    -- Of a run that the Agent Server API was asked for.
    assistant_id uuid,
    metadata jsonb NOT NULL DEFAULT '{}',
    -- The endpoint (outbox.endpoints) that is told of its end.
    webhook uuid,
    -- Whose concurrency slots it takes.
    queue text NOT NULL,
    status text NOT NULL
        CHECK (status IN ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')),
    -- What to run, so that any replica can. Null: only the process that inserted the run can execute it.
    kwargs json,
    multitask_strategy text NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    -- How often a replica has claimed the run for execution: the fencing token of the claim.
    attempt integer NOT NULL,
    -- With so many, a run whose replica dies is given up.
    max_attempts integer NOT NULL,
    -- Its place among the runs of its thread; in the future for a run that is to start later.
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    ended_at timestamptz,
    -- The replica that executes the run or whose caller waits for it; null: any replica may take it.
    claimed_by uuid,
    claim_expires_at timestamptz,
    -- How the run is to be cancelled, and why (the drain reasons of service/runs/ends.py).
    cancel_action text CHECK (cancel_action IN ('interrupt', 'rollback')),
    cancel_reason text,
    -- {error, message, details} of a run that failed.
    error json,
    CHECK ((ended_at IS NULL) = (status IN ('pending', 'running')))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
-- At most one run executes on a thread, in the whole deployment.
CREATE UNIQUE INDEX runs_one_running ON runs.runs (thread_id) WHERE status = 'running';
CREATE INDEX runs_open_by_thread ON runs.runs (thread_id, created_at, id) WHERE ended_at IS NULL;
-- claim_expires_at is in no index, so that a claim is renewed without touching one.
CREATE INDEX runs_open_by_tenant ON runs.runs (tenant, queue, status) WHERE ended_at IS NULL;
-- What replicas look for when they have room for runs that no caller waits for.
CREATE INDEX runs_unclaimed ON runs.runs (tenant, priority DESC, created_at, id)
    WHERE status = 'pending' AND claimed_by IS NULL;
CREATE INDEX runs_by_thread ON runs.runs (thread_id, created_at DESC);
CREATE INDEX runs_by_tenant ON runs.runs (tenant, created_at DESC, id);
-- Rows are inserted in the order of their age.
CREATE INDEX runs_by_age ON runs.runs USING brin (created_at);

-- A run to add: the columns of its row, and under which conditions it is added. kwargs is JSON as text, because a NUL
-- in a text of it may be stored, and not be read from the JSON around it.
CREATE TYPE runs.new_run AS (
    id uuid, thread_id text, tenant text, user_id text, graph text, queue text, kwargs text, strategy text,
    priority integer, assistant_id uuid, metadata jsonb, webhook uuid, thread_metadata jsonb, after_seconds float8,
    may_create boolean, may_start boolean, may_wait boolean, places integer, queue_length integer,
    max_attempts integer, claim_seconds float8, replica uuid
);

-- Inserts runs: each as running where it may start, when nothing is ahead of it on its thread and its tenant has a
-- place. Else as pending, where it may wait. Two runs that are added to one thread at once meet in the unique index,
-- and the second adds nothing. Called again, it finds what is ahead. A run sees those that were added before it.
CREATE FUNCTION runs.add(given json) RETURNS TABLE (
    id uuid, owner text, ahead bigint, status text, attempt integer, is_new_thread boolean, held_by text,
    is_conflict boolean
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    run runs.new_run;
BEGIN
    FOR run IN SELECT * FROM json_populate_recordset(NULL::runs.new_run, given) LOOP
        RETURN QUERY WITH thread AS (
            INSERT INTO runs.threads (id, tenant, user_id, graph, metadata)
            SELECT run.thread_id, run.tenant, run.user_id, nullif(run.graph, ''), run.thread_metadata
            WHERE run.may_create
            ON CONFLICT DO NOTHING
            RETURNING tenant
        ), named AS (
            UPDATE runs.threads SET graph = run.graph, metadata = metadata || run.thread_metadata
            WHERE id = run.thread_id AND tenant = run.tenant AND graph IS NULL AND run.graph <> ''
        ), owner AS (
            SELECT tenant FROM thread UNION ALL SELECT tenant FROM runs.threads WHERE id = run.thread_id LIMIT 1
        ), ahead AS (
            SELECT count(*) AS runs FROM runs.runs WHERE thread_id = run.thread_id AND ended_at IS NULL
        ), chosen AS (
            SELECT CASE
                WHEN run.may_start AND ahead.runs = 0 AND (run.places IS NULL OR run.places > (
                    SELECT count(*) FROM runs.runs
                    WHERE tenant = run.tenant AND queue = run.queue AND status = 'running' AND ended_at IS NULL
                )) THEN 'running'
                WHEN (run.may_wait OR ahead.runs = 0) AND run.queue_length > (
                    SELECT count(*) FROM (
                        SELECT FROM runs.runs
                        WHERE tenant = run.tenant AND queue = run.queue AND status = 'pending' AND ended_at IS NULL
                        LIMIT run.queue_length
                    ) AS waiting
                ) THEN 'pending'
            END AS status
            FROM owner, ahead WHERE owner.tenant = run.tenant
        ), added AS (
            INSERT INTO runs.runs (id, thread_id, tenant, user_id, graph, queue, status, kwargs, multitask_strategy,
                                   priority, attempt, max_attempts, started_at, claimed_by, claim_expires_at,
                                   assistant_id, metadata, webhook, created_at)
            SELECT run.id, run.thread_id, run.tenant, run.user_id, run.graph, run.queue, chosen.status, run.kwargs::json,
                   run.strategy, run.priority, CASE chosen.status WHEN 'running' THEN 1 ELSE 0 END,
                   run.max_attempts, CASE chosen.status WHEN 'running' THEN now() END, run.replica,
                   CASE WHEN run.replica IS NOT NULL THEN now() + run.claim_seconds * interval '1 second' END,
                   run.assistant_id, run.metadata, run.webhook, clock_timestamp() + run.after_seconds * interval '1 second'
            FROM chosen WHERE chosen.status IS NOT NULL
            ON CONFLICT DO NOTHING
            RETURNING status, attempt
        )
        SELECT run.id, (SELECT tenant FROM owner), (SELECT runs FROM ahead), (SELECT status FROM added),
               coalesce((SELECT attempt FROM added), 0), EXISTS (SELECT FROM thread),
               coalesce((SELECT held_by FROM runs.threads WHERE id = run.thread_id), ''),
               (SELECT status FROM chosen) IS NOT NULL AND NOT EXISTS (SELECT FROM added);
        IF run.replica IS NULL THEN
            PERFORM pg_notify('ventros_runs', 'ready');
        END IF;
    END LOOP;
END
$$;

-- Starts those pending runs whose turn it is: for the replica that holds one, or for any where nobody does. Returns
-- those it has started.
CREATE FUNCTION runs.claim(given json, replica uuid, claim_seconds float8)
RETURNS TABLE (id uuid, attempt integer, held_by text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT * FROM json_to_recordset(given) AS each (run uuid, places integer) LOOP
        BEGIN
            RETURN QUERY UPDATE runs.runs AS run
            SET status = 'running', attempt = attempt + 1, started_at = coalesce(started_at, now()),
                claimed_by = claim.replica,
                claim_expires_at = now() + claim.claim_seconds * interval '1 second'
            WHERE id = wanted.run AND status = 'pending' AND (claimed_by IS NULL OR claimed_by = claim.replica)
              AND created_at <= clock_timestamp()
              AND NOT EXISTS (
                  SELECT FROM runs.runs AS other
                  WHERE other.thread_id = run.thread_id AND other.ended_at IS NULL
                    AND (other.status = 'running' OR (other.created_at, other.id) < (run.created_at, run.id))
              )
              AND (wanted.places IS NULL OR wanted.places > (
                  SELECT count(*) FROM runs.runs AS other
                  WHERE other.tenant = run.tenant AND other.queue = run.queue AND other.status = 'running'
                    AND other.ended_at IS NULL
              ))
            RETURNING run.id, run.attempt,
                      coalesce((SELECT held_by FROM runs.threads WHERE id = run.thread_id), '');
        EXCEPTION WHEN unique_violation THEN
            -- Another run of the thread was claimed at the same moment.
        END;
    END LOOP;
END
$$;

-- Fails unless each run still has this attempt in progress, and holds that fact until the transaction ends: nobody
-- can take a run over between this check and the commit of what is written with it. Called by the statement that
-- writes checkpoints and by the one that records the start of an effect.
CREATE FUNCTION runs.require_claims(ids uuid[], attempts integer[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    held integer;
BEGIN
    SELECT count(*) INTO held FROM (
        SELECT FROM unnest(ids, attempts) AS wanted (id, attempt)
        JOIN runs.runs AS run ON run.id = wanted.id
        WHERE run.status = 'running' AND run.attempt = wanted.attempt
        -- In the order in which others lock several rows.
        ORDER BY run.id FOR SHARE OF run
    ) AS locked;
    IF held < cardinality(ids) THEN
        RAISE EXCEPTION 'a run of this statement belongs to another replica, or has ended'
            USING ERRCODE = 'VA001';
    END IF;
    RETURN held;
END
$$;

-- Parts of the streams of runs that a caller follows on another replica than the one that executes the run. They may be
-- lost in a crash of the database: the run's answer is in its checkpoints.
CREATE UNLOGGED TABLE runs.parts (
    run_id uuid NOT NULL,
    seq bigint NOT NULL,
    -- Microseconds since 1970, by the clock of the replica that executes the run.
    came_at bigint NOT NULL,
    -- As the checkpointer's serializer writes it.
    part bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, seq)
);
CREATE INDEX parts_by_age ON runs.parts (at);

-- Configured variants of a graph, of one tenant. Each graph has one that the service creates.
CREATE TABLE runs.assistants (
    tenant text NOT NULL,
    id uuid NOT NULL,
    graph text NOT NULL,
    name text NOT NULL,
    description text,
    config jsonb NOT NULL DEFAULT '{}',
    context jsonb NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    -- The version that runs use.
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
-- An id belongs to one tenant, except those of the assistants that every tenant has.
CREATE UNIQUE INDEX assistants_by_id ON runs.assistants (id) WHERE NOT metadata @> '{"created_by": "system"}';

CREATE TABLE runs.assistant_versions (
    tenant text NOT NULL,
    assistant_id uuid NOT NULL,
    version integer NOT NULL,
    graph text NOT NULL,
    name text NOT NULL,
    description text,
    config jsonb NOT NULL,
    context jsonb NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, assistant_id, version),
    FOREIGN KEY (tenant, assistant_id) REFERENCES runs.assistants ON DELETE CASCADE
);

-- Runs that begin again and again, on one thread or each on a new one.
CREATE TABLE runs.crons (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    -- On whose behalf its runs work: {scopes, credential}.
    caller jsonb NOT NULL,
    assistant_id uuid NOT NULL,
    thread_id text,
    schedule text NOT NULL,
    -- IANA name; null: UTC.
    timezone text,
    end_time timestamptz,
    next_run_at timestamptz,
    enabled boolean NOT NULL,
    on_run_completed text CHECK (on_run_completed IN ('delete', 'keep')),
    -- The body of its runs.
    payload json NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX crons_by_tenant ON runs.crons (tenant, created_at DESC, id);
CREATE INDEX crons_due ON runs.crons (next_run_at) WHERE enabled AND next_run_at IS NOT NULL;

-- What graphs and clients keep beside threads, by namespace and key.
CREATE TABLE runs.items (
    tenant text NOT NULL,
    namespace text[] NOT NULL,
    key text NOT NULL,
    value jsonb NOT NULL,
    -- Of the value's texts, for searches by meaning; null: it is not indexed.
    embedding real[],
    embedding_model text,
    ttl_minutes float8,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, namespace, key)
);
CREATE INDEX items_expiring ON runs.items (expires_at) WHERE expires_at IS NOT NULL;
