-- A run of a workflow is a thread, so its id is the thread's and is nobody else's, in any tenant.
CREATE TABLE workflows.runs (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    -- The caller's own id of the run, so that one asked for twice is begun once; empty: none.
    client_id text NOT NULL,
    name text NOT NULL,
    definition jsonb NOT NULL,
    input jsonb NOT NULL,
    priority integer NOT NULL,
    status text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    -- Why it failed; null while it did not.
    error jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    -- When a waiting run goes on by itself; null: when something comes for it.
    wake_at timestamptz,
    -- Something came for it: a signal, an answer, a cancellation.
    poked boolean NOT NULL DEFAULT false,
    cancel_requested boolean NOT NULL DEFAULT false,
    -- Which service runs it, and until when nobody else may.
    leased_by text NOT NULL DEFAULT '',
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    -- How often a service that ran it was not heard of any more, since it last waited.
    lapses integer NOT NULL DEFAULT 0,
    CHECK ((ended_at IS NULL) = (status IN ('queued', 'running', 'waiting')))
);
CREATE UNIQUE INDEX runs_by_client_id ON workflows.runs (tenant, client_id) WHERE client_id <> '';
CREATE INDEX runs_by_tenant ON workflows.runs (tenant, created_at DESC, id);
-- Those that are looked at for what is due; what is over may be any number.
CREATE INDEX runs_open ON workflows.runs (priority DESC, created_at) WHERE ended_at IS NULL;

-- What came for a run from outside. A signal may come before it is waited for.
CREATE TABLE workflows.signals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text NOT NULL REFERENCES workflows.runs ON DELETE CASCADE,
    name text NOT NULL,
    payload jsonb NOT NULL,
    -- The interrupt it ended; null: none yet. It is set before the run goes on with it, so that after a crash
    -- the same interrupt gets the same signal and no other one does.
    interrupt_id text,
    sent_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX signals_by_run ON workflows.signals (run_id, id);
CREATE UNIQUE INDEX signals_by_interrupt ON workflows.signals (run_id, interrupt_id)
    WHERE interrupt_id IS NOT NULL;
