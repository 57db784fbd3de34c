-- The words of facts are indexed in Spanish too. PostgreSQL before 17 cannot change the expression of a generated
-- column, so the column is made anew.
ALTER TABLE memory.facts
    DROP COLUMN search,
    ADD COLUMN search tsvector NOT NULL GENERATED ALWAYS AS (
        to_tsvector('english', CASE WHEN subject_key = 'contact' THEN '' ELSE subject END
                               || ' ' || translate(predicate, '_', ' ') || ' ' || scope_key || ' ' || object)
        || to_tsvector('portuguese', CASE WHEN subject_key = 'contact' THEN '' ELSE subject END
                                     || ' ' || translate(predicate, '_', ' ') || ' ' || scope_key || ' ' || object)
        || to_tsvector('spanish', CASE WHEN subject_key = 'contact' THEN '' ELSE subject END
                                  || ' ' || translate(predicate, '_', ' ') || ' ' || scope_key || ' ' || object)
    ) STORED;
