-- A run of a workflow is a thread: its id is the thread's, and unique over all tenants.
CREATE TABLE workflows.runs (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    -- The caller's own id of the run, so that a repeated request does not start it twice; empty: none.
    client_id text NOT NULL,
    name text NOT NULL,
    definition jsonb NOT NULL,
    input jsonb NOT NULL,
    priority integer NOT NULL,
    -- queued: it begins or continues as soon as there is a place for it.
    status text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    -- Why it failed; null: it has not failed.
    error jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    -- When a waiting run continues by itself; null: it waits for a signal or a person.
    wake_at timestamptz,
    cancel_requested boolean NOT NULL DEFAULT false,
    -- {checkpoint_id, update, goto}: what a recovery changes, while that is the thread's latest checkpoint.
    recovery jsonb,
    -- Grows whenever the run begins or continues. Only who knows the latest one may say how the run stands.
    attempt integer NOT NULL DEFAULT 0,
    -- Queued runs begin in this order. It follows the tenant's own runs that are as urgent, and comes before those of
    -- tenants that have queued more (start-time fair queueing).
    turn integer NOT NULL,
    -- How often the process that executed the run died since the run last waited.
    interruptions integer NOT NULL DEFAULT 0,
    CHECK ((ended_at IS NULL) = (status IN ('queued', 'running', 'waiting')))
);
CREATE UNIQUE INDEX runs_by_client_id ON workflows.runs (tenant, client_id) WHERE client_id <> '';
CREATE INDEX runs_by_tenant ON workflows.runs (tenant, created_at DESC, id);
-- For the search of due runs: there may be any number of others.
CREATE INDEX runs_queued ON workflows.runs (turn, priority DESC, created_at) WHERE status = 'queued';
CREATE INDEX runs_queued_by_tenant ON workflows.runs (tenant, turn DESC, priority) WHERE status = 'queued';
CREATE INDEX runs_running ON workflows.runs (id) WHERE status = 'running';
CREATE INDEX runs_waiting ON workflows.runs (wake_at) WHERE status = 'waiting' AND wake_at IS NOT NULL;

-- Signals sent to runs. A signal may come before its run waits for it.
CREATE TABLE workflows.signals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text NOT NULL REFERENCES workflows.runs ON DELETE CASCADE,
    name text NOT NULL,
    payload jsonb NOT NULL,
    -- The interrupt that took the signal; null: none yet. It is set before the run continues, so that after a
    -- crash the same interrupt gets the same signal and no other interrupt does.
    interrupt_id text,
    sent_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX signals_by_run ON workflows.signals (run_id, id);
CREATE UNIQUE INDEX signals_by_interrupt ON workflows.signals (run_id, interrupt_id)
    WHERE interrupt_id IS NOT NULL;
