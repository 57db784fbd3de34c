-- Tells the service's outbox, where it is in this database, of facts that the memory did not know before: those whose
-- first version is written. A memory service of its own has no outbox.
CREATE FUNCTION memory.announce_fact() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    contact memory.scopes;
    session text;
BEGIN
    IF to_regproc('outbox.add') IS NULL
        OR EXISTS (SELECT FROM memory.facts WHERE origin = NEW.origin AND id <> NEW.id)
    THEN
        RETURN NULL;
    END IF;
    SELECT * INTO contact FROM memory.scopes WHERE id = NEW.scope;
    SELECT session_id INTO session FROM memory.messages WHERE scope = NEW.scope AND id = NEW.source_message_id;
    EXECUTE 'SELECT outbox.add($1, ''fact.learned'', 1, $2, $3, $4)'
    USING contact.tenant, coalesce(session, ''), contact.contact_id, json_build_object(
        'contact_id', contact.contact_id, 'fact_id', NEW.id::text, 'subject', NEW.subject, 'predicate', NEW.predicate,
        'object', NEW.object, 'confidence', NEW.confidence, 'valid_from', NEW.valid_from, 'valid_to', NEW.valid_to,
        'source_message_id', NEW.source_message_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_fact AFTER INSERT ON memory.facts
    FOR EACH ROW EXECUTE FUNCTION memory.announce_fact();
