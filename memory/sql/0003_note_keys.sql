-- A note may have a key, under which its text is replaced; '' is a note without one. The digest of a note with a key
-- is that of the key, so the existing constraint keeps keys unique for a contact, type and agent.
ALTER TABLE memory.notes ADD COLUMN key text NOT NULL DEFAULT '';
