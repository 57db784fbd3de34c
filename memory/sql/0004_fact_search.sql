-- What a fact is found by: its words, in both languages. The contact is whom all of it is about, so the word
-- tells nothing.
ALTER TABLE memory.facts ADD COLUMN search tsvector NOT NULL GENERATED ALWAYS AS (
    to_tsvector('english', CASE WHEN subject_key = 'contact' THEN '' ELSE subject END
                           || ' ' || translate(predicate, '_', ' ') || ' ' || scope_key || ' ' || object)
    || to_tsvector('portuguese', CASE WHEN subject_key = 'contact' THEN '' ELSE subject END
                                 || ' ' || translate(predicate, '_', ' ') || ' ' || scope_key || ' ' || object)
) STORED;
