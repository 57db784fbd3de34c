-- The further parts of a long message are embedded when no first parts of others wait.
ALTER TABLE memory.unembedded ADD COLUMN later boolean NOT NULL DEFAULT false;
CREATE INDEX unembedded_order ON memory.unembedded (later, unit DESC);
