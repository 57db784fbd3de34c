-- Vectors by unit and model, and so by dimension. `large` marks those of scopes that have too many to compare one by
-- one; only these are in the HNSW index of their model.
CREATE TABLE IF NOT EXISTS memory.vectors (
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    unit bigint NOT NULL REFERENCES memory.units ON DELETE CASCADE,
    model integer NOT NULL REFERENCES memory.models ON DELETE CASCADE,
    large boolean NOT NULL DEFAULT false,
    embedding halfvec NOT NULL,
    PRIMARY KEY (unit, model)
);
CREATE INDEX IF NOT EXISTS vectors_by_scope ON memory.vectors (scope, model);
