-- Additions to the tables of LangGraph's Postgres saver, which creates them itself.

-- Pending interrupts are found without reading every write of every thread.
CREATE INDEX IF NOT EXISTS checkpoint_writes_interrupts ON checkpoint_writes (thread_id, checkpoint_id)
    WHERE checkpoint_ns = '' AND channel = '__interrupt__';

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
