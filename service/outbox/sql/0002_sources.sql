-- What makes events true in the tables of other packages. A trigger is part of the transaction, whichever statement
-- changes the row, so that no event is lost and none is made up.
--
-- Elsewhere: what the row does not say is written by the statement that ends a run (service/runs/queries.sql), finishes
-- an effect (service/audit/idempotency.py) or lets a workflow wait (workflows/queries.sql), and memory writes its own
-- (memory/sql/0005_events.sql).
CREATE FUNCTION outbox.announce_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.closed_at IS NULL THEN
        PERFORM outbox.add(NEW.tenant, 'session.opened', 1, NEW.id, NEW.contact_id, json_build_object(
            'contact_id', NEW.contact_id, 'channel_id', NEW.channel_id, 'is_resumed', TG_OP = 'UPDATE'));
    ELSE
        PERFORM outbox.add(NEW.tenant, 'session.closed', 1, NEW.id, NEW.contact_id, json_build_object(
            'contact_id', NEW.contact_id, 'channel_id', NEW.channel_id, 'closed_by', NEW.closed_by,
            'opened_at', NEW.opened_at));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_opened AFTER INSERT ON sessions.sessions
    FOR EACH ROW EXECUTE FUNCTION outbox.announce_session();
CREATE TRIGGER announce_changed AFTER UPDATE OF closed_at ON sessions.sessions
    FOR EACH ROW WHEN ((OLD.closed_at IS NULL) <> (NEW.closed_at IS NULL))
    EXECUTE FUNCTION outbox.announce_session();

CREATE FUNCTION outbox.announce_failure() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    code text := NEW.status;
    reason text := '';
BEGIN
    BEGIN
        code := coalesce(NEW.error ->> 'error', code);
        reason := coalesce(NEW.error ->> 'message', reason);
    EXCEPTION WHEN untranslatable_character THEN
        -- Somewhere in the error is a NUL, which must not keep the run from ending.
        NULL;
    END;
    PERFORM outbox.add(NEW.tenant, 'run.failed', 1, NEW.thread_id, '', json_build_object(
        'run_id', NEW.id, 'graph', NEW.graph, 'error', code, 'message', reason, 'attempts', NEW.attempt));
    RETURN NULL;
END
$$;
-- A stretch of a workflow is no run of its own: workflow.ended says how the workflow failed.
CREATE TRIGGER announce_failure AFTER UPDATE OF status ON runs.runs
    FOR EACH ROW WHEN (
        OLD.ended_at IS NULL AND NEW.status IN ('error', 'timeout') AND NEW.queue <> 'workflows' AND NEW.graph <> ''
    )
    EXECUTE FUNCTION outbox.announce_failure();

-- Of a run that named a webhook, to that webhook alone. Its output is read from its thread.
CREATE FUNCTION outbox.announce_run_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM outbox.add(NEW.tenant, 'run.ended', 1, NEW.thread_id, '', json_build_object(
        'run_id', NEW.id, 'thread_id', NEW.thread_id, 'graph', NEW.graph, 'status', NEW.status,
        'assistant_id', NEW.assistant_id, 'metadata', NEW.metadata, 'started_at', NEW.started_at,
        'ended_at', NEW.ended_at), 'run.ended:' || NEW.id, NEW.webhook);
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_run_end AFTER UPDATE OF status ON runs.runs
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL AND NEW.webhook IS NOT NULL)
    EXECUTE FUNCTION outbox.announce_run_end();

CREATE FUNCTION outbox.announce_holder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM outbox.add(
        NEW.tenant, CASE WHEN NEW.held_by = '' THEN 'session.given_back' ELSE 'session.taken_over' END, 1, NEW.id,
        coalesce(NEW.metadata ->> 'contact_id', ''), json_build_object(
            'contact_id', coalesce(NEW.metadata ->> 'contact_id', ''),
            'person', CASE WHEN NEW.held_by = '' THEN OLD.held_by ELSE NEW.held_by END));
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_holder AFTER UPDATE OF held_by ON runs.threads
    FOR EACH ROW WHEN (OLD.held_by <> NEW.held_by) EXECUTE FUNCTION outbox.announce_holder();

CREATE FUNCTION outbox.announce_decision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM outbox.add(NEW.tenant, 'approval.decided', 1, NEW.thread_id, '', json_build_object(
        'approval_id', (NEW.details ->> 'interrupt_id') || '.' || NEW.thread_id, 'run_id', NEW.run_id,
        'graph', NEW.details ->> 'graph', 'tool', NEW.tool, 'decision', NEW.outcome, 'decided_by', NEW.user_id));
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_decision AFTER INSERT ON audit.entries
    FOR EACH ROW WHEN (NEW.action = 'approval') EXECUTE FUNCTION outbox.announce_decision();

CREATE FUNCTION outbox.announce_workflow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM outbox.add(NEW.tenant, 'workflow.ended', 1, NEW.id, '', json_build_object(
        'workflow_id', NEW.id, 'client_id', NEW.client_id, 'name', NEW.name, 'status', NEW.status,
        'error', NEW.error ->> 'error', 'message', NEW.error ->> 'message'));
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_ended AFTER UPDATE OF status ON workflows.runs
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
    EXECUTE FUNCTION outbox.announce_workflow();
