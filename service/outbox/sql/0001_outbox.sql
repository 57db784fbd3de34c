-- The outbox: domain events, written in the transaction that makes them true, and their deliveries to webhooks.
--
-- The row of a thread is locked by whoever adds an event to it, until that transaction ends. So the events of a thread
-- are numbered in the order in which they became true, without gaps, and positions grow in that order too.
CREATE TABLE outbox.threads (
    thread_id text NOT NULL,
    tenant text NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (thread_id, tenant)
) WITH (fillfactor = 80);

CREATE TABLE outbox.events (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    tenant text NOT NULL,
    type text NOT NULL,
    version integer NOT NULL,
    -- Empty: of no thread. Such events are not ordered among each other.
    thread_id text NOT NULL,
    -- The contact it is about; empty: none.
    contact_id text NOT NULL,
    sequence bigint NOT NULL,
    -- Not jsonb, which takes no NUL: a customer's words must not be able to stop a run from ending.
    data json NOT NULL,
    -- A name under which the event is written once; empty: what makes it true happens once.
    once text NOT NULL,
    -- Whether the broker has yet to confirm it.
    is_unpublished boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE UNIQUE INDEX events_once ON outbox.events (tenant, once) WHERE once <> '';
CREATE INDEX events_unpublished ON outbox.events (position) WHERE is_unpublished;
CREATE INDEX events_by_thread ON outbox.events (thread_id, sequence);
CREATE INDEX events_by_contact ON outbox.events (tenant, contact_id) WHERE contact_id <> '';
-- Rows are inserted in the order of their age.
CREATE INDEX events_by_age ON outbox.events USING brin (at);

-- Until when events are kept for a broker: a replica that publishes to one extends it.
CREATE TABLE outbox.brokers (
    name text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- Webhooks: where a tenant wants its events sent.
CREATE TABLE outbox.endpoints (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant text NOT NULL,
    url text NOT NULL,
    description text NOT NULL DEFAULT '',
    -- Null: all types. Empty: none, as for the addresses that single runs name.
    types text[],
    secret text NOT NULL,
    -- The secret before the last rotation, which signs too until then.
    previous_secret text,
    previous_until timestamptz,
    is_enabled boolean NOT NULL DEFAULT true,
    -- Why it was disabled by the service; empty: it was not.
    disabled_reason text NOT NULL DEFAULT '',
    -- Since when no delivery has succeeded; null: the last one did.
    failing_since timestamptz,
    -- Whether runs name the address, so that the service made the endpoint.
    is_for_runs boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX endpoints_by_tenant ON outbox.endpoints (tenant, created_at, id);
CREATE UNIQUE INDEX endpoints_for_runs ON outbox.endpoints (tenant, url) WHERE is_for_runs;

-- An event on its way to an endpoint. Of the pending deliveries of one thread to one endpoint only the first has a
-- time at which it is due; the others wait for it.
CREATE TABLE outbox.deliveries (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    position bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    endpoint_id uuid NOT NULL REFERENCES outbox.endpoints ON DELETE CASCADE,
    event_id uuid NOT NULL REFERENCES outbox.events (id) ON DELETE CASCADE,
    tenant text NOT NULL,
    thread_id text NOT NULL,
    -- dead: given up.
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    -- While an attempt is in progress, when another process may make the next one.
    due_at timestamptz NOT NULL,
    -- Since when it is tried; it is given up after a time from then.
    since timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    -- Of the last attempt: the HTTP status, and what went wrong.
    response_status integer,
    error text NOT NULL DEFAULT ''
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX deliveries_due ON outbox.deliveries (due_at) WHERE status = 'pending';
CREATE INDEX deliveries_pending ON outbox.deliveries (endpoint_id, thread_id, position) WHERE status = 'pending';
CREATE INDEX deliveries_by_endpoint ON outbox.deliveries (endpoint_id, position DESC);
CREATE INDEX deliveries_by_event ON outbox.deliveries (event_id);

-- Adds an event, if anybody receives it, and its deliveries. A run's webhook receives it alone.
CREATE FUNCTION outbox.add(
    for_tenant text, of_type text, of_version integer, thread text, contact text, content json,
    only_once text DEFAULT '', only_to uuid DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    is_for_broker boolean;
    receivers uuid[];
    number bigint := 0;
    event uuid;
BEGIN
    is_for_broker := only_to IS NULL AND EXISTS (SELECT FROM outbox.brokers WHERE expires_at > now());
    SELECT array_agg(id ORDER BY id) INTO receivers FROM outbox.endpoints
    WHERE tenant = for_tenant
      AND CASE WHEN only_to IS NULL THEN types IS NULL OR of_type = ANY (types) ELSE id = only_to END;
    IF NOT is_for_broker AND receivers IS NULL THEN
        RETURN;
    END IF;
    IF thread <> '' THEN
        INSERT INTO outbox.threads AS known (thread_id, tenant, sequence) VALUES (thread, for_tenant, 1)
        ON CONFLICT (thread_id, tenant) DO UPDATE SET sequence = known.sequence + 1
        RETURNING sequence INTO number;
    END IF;
    INSERT INTO outbox.events (tenant, type, version, thread_id, contact_id, sequence, data, once, is_unpublished)
    VALUES (for_tenant, of_type, of_version, thread, contact, number, content, only_once, is_for_broker)
    ON CONFLICT DO NOTHING
    RETURNING id INTO event;
    IF event IS NULL THEN
        UPDATE outbox.threads SET sequence = number - 1 WHERE thread_id = thread AND tenant = for_tenant;
        RETURN;
    END IF;
    INSERT INTO outbox.deliveries (endpoint_id, event_id, tenant, thread_id, due_at)
    SELECT endpoint.id, event, for_tenant, thread, CASE
        WHEN endpoint.is_enabled AND (thread = '' OR NOT EXISTS (
            SELECT FROM outbox.deliveries AS earlier
            WHERE earlier.endpoint_id = endpoint.id AND earlier.thread_id = thread AND earlier.status = 'pending'
        )) THEN now()
        ELSE 'infinity'
    END
    FROM outbox.endpoints AS endpoint WHERE endpoint.id = ANY (receivers);
END
$$;

-- Adds events given as [{type, version, thread_id, contact_id, data, once}].
CREATE FUNCTION outbox.add_all(for_tenant text, events json) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    event json;
    added integer := 0;
BEGIN
    FOR event IN SELECT json_array_elements(events) LOOP
        PERFORM outbox.add(
            for_tenant, event ->> 'type', (event ->> 'version')::integer, event ->> 'thread_id',
            event ->> 'contact_id', event -> 'data', event ->> 'once'
        );
        added := added + 1;
    END LOOP;
    RETURN added;
END
$$;

-- Records the outcome of an attempt, unless another process has made a later one: 'delivered', 'dead', or 'pending'
-- until a time at which it is tried again. What ends lets the thread's next delivery begin.
CREATE FUNCTION outbox.finish(
    delivery uuid, attempt integer, outcome text, next_at timestamptz, http_status integer, fault text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    known outbox.deliveries;
BEGIN
    SELECT * INTO known FROM outbox.deliveries WHERE id = delivery;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF outcome <> 'pending' AND known.thread_id <> '' THEN
        -- Whoever adds an event to the thread at this moment has seen this delivery pending.
        PERFORM FROM outbox.threads WHERE thread_id = known.thread_id AND tenant = known.tenant FOR UPDATE;
    END IF;
    UPDATE outbox.deliveries
    SET status = outcome, due_at = coalesce(next_at, due_at), response_status = http_status, error = fault,
        ended_at = CASE WHEN outcome <> 'pending' THEN now() END
    WHERE id = delivery AND attempts = attempt AND status = 'pending';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE outbox.endpoints SET failing_since = CASE WHEN outcome <> 'delivered' THEN now() END
    WHERE id = known.endpoint_id AND (failing_since IS NULL) = (outcome <> 'delivered');
    IF outcome <> 'pending' AND known.thread_id <> '' THEN
        UPDATE outbox.deliveries SET due_at = now(), since = now()
        WHERE due_at = 'infinity' AND id = (
            SELECT id FROM outbox.deliveries
            WHERE endpoint_id = known.endpoint_id AND thread_id = known.thread_id AND status = 'pending'
            ORDER BY position LIMIT 1
        ) AND EXISTS (SELECT FROM outbox.endpoints WHERE id = known.endpoint_id AND is_enabled);
    END IF;
    RETURN true;
END
$$;
