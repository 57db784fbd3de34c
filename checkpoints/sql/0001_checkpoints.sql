-- Additions to the tables of LangGraph's Postgres saver, which creates them itself.

-- Pending interrupts are found without reading every write of every thread.
CREATE INDEX IF NOT EXISTS checkpoint_writes_interrupts ON checkpoint_writes (thread_id, checkpoint_id)
    WHERE checkpoint_ns = '' AND channel = '__interrupt__';

-- The threads whose latest checkpoint has pending interrupts, so that a tenant's are listed without looking at
-- anybody else's. Two triggers keep it true in the transaction that writes the checkpoint or the interrupt.
CREATE TABLE waiting_threads (
    thread_id text PRIMARY KEY,
    -- Where the thread waits. LangGraph's ids are time-ordered (UUIDv6).
    checkpoint_id text NOT NULL,
    tenant text NOT NULL,
    graph text,
    since text NOT NULL
);
CREATE INDEX waiting_threads_by_tenant ON waiting_threads (tenant, checkpoint_id);

-- An interrupt of the thread's own graph. Its checkpoint may be written after it: then the thread's previous one
-- says whose it is.
CREATE FUNCTION record_waiting_thread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO waiting_threads AS waiting (thread_id, checkpoint_id, tenant, graph, since)
    SELECT NEW.thread_id, NEW.checkpoint_id, metadata ->> 'tenant', metadata ->> 'graph', checkpoint ->> 'ts'
    FROM (
        SELECT checkpoint, metadata FROM checkpoints
        WHERE thread_id = NEW.thread_id AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1
    ) AS latest
    WHERE metadata ->> 'tenant' IS NOT NULL
    ON CONFLICT (thread_id) DO UPDATE SET
        checkpoint_id = EXCLUDED.checkpoint_id, graph = EXCLUDED.graph, since = EXCLUDED.since
    WHERE waiting.checkpoint_id < EXCLUDED.checkpoint_id;
    RETURN NULL;
END $$;
CREATE TRIGGER record_waiting_thread AFTER INSERT OR UPDATE ON checkpoint_writes
    FOR EACH ROW WHEN (NEW.channel = '__interrupt__' AND NEW.checkpoint_ns = '')
    EXECUTE FUNCTION record_waiting_thread();

-- A later checkpoint: the interrupts were answered, or the thread went on without an answer.
CREATE FUNCTION remove_waiting_thread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM waiting_threads WHERE thread_id = NEW.thread_id AND checkpoint_id < NEW.checkpoint_id;
    RETURN NULL;
END $$;
CREATE TRIGGER remove_waiting_thread AFTER INSERT ON checkpoints
    FOR EACH ROW WHEN (NEW.checkpoint_ns = '')
    EXECUTE FUNCTION remove_waiting_thread();

-- Rows are written once and, by retention, deleted in batches. By default Postgres vacuums a table when a fifth
-- of it is dead and analyses it when a tenth is new. For large tables that is too late for the planner.
ALTER TABLE checkpoints SET (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.02
);
ALTER TABLE checkpoint_blobs SET (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.02
);
ALTER TABLE checkpoint_writes SET (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.02
);
