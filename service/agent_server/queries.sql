-- Queries of service/agent_server.

-- name: add_system_assistants
-- A graph's description may change with a release, until somebody changes the assistant.
WITH added AS (
    INSERT INTO runs.assistants AS known (tenant, id, graph, name, description, metadata)
    SELECT %(tenant)s, id, graph, graph, description, '{"created_by": "system"}'
    FROM unnest(%(ids)s::uuid[], %(graphs)s::text[], %(descriptions)s::text[]) AS each (id, graph, description)
    ON CONFLICT (tenant, id) DO UPDATE SET description = excluded.description
        WHERE known.description IS DISTINCT FROM excluded.description AND known.version = 1
          AND known.updated_at = known.created_at
    RETURNING *
)
INSERT INTO runs.assistant_versions (tenant, assistant_id, version, graph, name, description, config, context, metadata)
SELECT tenant, id, version, graph, name, description, config, context, metadata FROM added
ON CONFLICT (tenant, assistant_id, version) DO UPDATE SET description = excluded.description

-- name: add_assistant
WITH added AS (
    INSERT INTO runs.assistants (tenant, id, graph, name, description, config, context, metadata)
    VALUES (%(tenant)s, %(id)s, %(graph)s, %(name)s, %(description)s, %(config)s, %(context)s, %(metadata)s)
    ON CONFLICT DO NOTHING
    RETURNING *
), version AS (
    INSERT INTO runs.assistant_versions
        (tenant, assistant_id, version, graph, name, description, config, context, metadata)
    SELECT tenant, id, version, graph, name, description, config, context, metadata FROM added
)
SELECT id::text AS assistant_id, graph AS graph_id, name, description, config, context, metadata, version,
       created_at, updated_at
FROM added

-- name: get_assistant
SELECT id::text AS assistant_id, graph AS graph_id, name, description, config, context, metadata, version,
       created_at, updated_at
FROM runs.assistants WHERE tenant = %(tenant)s AND id = %(id)s

-- name: update_assistant
-- Each change is a version of its own, which becomes the one that runs use.
WITH latest AS (
    SELECT max(version) + 1 AS next FROM runs.assistant_versions
    WHERE tenant = %(tenant)s AND assistant_id = %(id)s
), updated AS (
    UPDATE runs.assistants SET
        graph = coalesce(%(graph)s, graph),
        name = coalesce(%(name)s, name),
        description = coalesce(%(description)s, description),
        config = coalesce(%(config)s::jsonb, config),
        context = coalesce(%(context)s::jsonb, context),
        metadata = metadata || coalesce(%(metadata)s::jsonb, '{}'),
        version = latest.next,
        updated_at = clock_timestamp()
    FROM latest WHERE tenant = %(tenant)s AND id = %(id)s
    RETURNING assistants.*
), version AS (
    INSERT INTO runs.assistant_versions
        (tenant, assistant_id, version, graph, name, description, config, context, metadata)
    SELECT tenant, id, version, graph, name, description, config, context, metadata FROM updated
)
SELECT id::text AS assistant_id, graph AS graph_id, name, description, config, context, metadata, version,
       created_at, updated_at
FROM updated

-- name: set_assistant_version
UPDATE runs.assistants AS assistant SET
    graph = chosen.graph, name = chosen.name, description = chosen.description, config = chosen.config,
    context = chosen.context, metadata = chosen.metadata, version = chosen.version, updated_at = clock_timestamp()
FROM runs.assistant_versions AS chosen
WHERE assistant.tenant = %(tenant)s AND assistant.id = %(id)s AND chosen.tenant = assistant.tenant
  AND chosen.assistant_id = assistant.id AND chosen.version = %(version)s
RETURNING assistant.id::text AS assistant_id, assistant.graph AS graph_id, assistant.name, assistant.description,
          assistant.config, assistant.context, assistant.metadata, assistant.version, assistant.created_at,
          assistant.updated_at

-- name: list_assistant_versions
SELECT assistant_id::text, graph AS graph_id, name, description, config, context, metadata, version, created_at
FROM runs.assistant_versions
WHERE tenant = %(tenant)s AND assistant_id = %(id)s AND metadata @> %(metadata)s
ORDER BY version DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: delete_assistant
DELETE FROM runs.assistants WHERE tenant = %(tenant)s AND id = %(id)s RETURNING id

-- name: list_assistant_runs
-- Runs of an assistant that have not ended.
SELECT DISTINCT thread_id FROM runs.runs
WHERE tenant = %(tenant)s AND assistant_id = %(id)s AND ended_at IS NULL

-- name: list_assistant_threads
SELECT id FROM runs.threads
WHERE tenant = %(tenant)s AND metadata @> jsonb_build_object('assistant_id', %(id)s::text) AND metadata <> '{}'
LIMIT %(limit)s

-- name: add_thread
WITH added AS (
    INSERT INTO runs.threads (id, tenant, user_id, metadata)
    VALUES (%(id)s, %(tenant)s, %(user)s, %(metadata)s)
    ON CONFLICT (id) DO NOTHING
    RETURNING tenant
)
SELECT true AS is_new, tenant FROM added
UNION ALL SELECT false, tenant FROM runs.threads WHERE id = %(id)s
LIMIT 1

-- name: update_thread
UPDATE runs.threads SET metadata = metadata || %(metadata)s, updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND id = %(id)s
RETURNING id

-- name: name_thread_graph
UPDATE runs.threads SET graph = %(graph)s WHERE tenant = %(tenant)s AND id = %(id)s AND graph IS NULL
RETURNING id

-- name: copy_thread
-- The copy is no session: its contact's messages go on where they did.
INSERT INTO runs.threads (id, tenant, user_id, graph, status, metadata)
SELECT %(target)s, tenant, %(user)s, graph, status, metadata FROM runs.threads
WHERE id = %(source)s AND tenant = %(tenant)s
RETURNING id

-- name: set_thread_status
UPDATE runs.threads SET status = %(status)s, updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND id = %(id)s
RETURNING id

-- name: put_item
INSERT INTO runs.items (tenant, namespace, key, value, embedding, embedding_model, ttl_minutes, expires_at)
VALUES (%(tenant)s, %(namespace)s, %(key)s, %(value)s, %(embedding)s, %(model)s, %(ttl)s,
        now() + %(ttl)s * interval '1 minute')
ON CONFLICT (tenant, namespace, key) DO UPDATE SET
    value = excluded.value, embedding = excluded.embedding, embedding_model = excluded.embedding_model,
    ttl_minutes = excluded.ttl_minutes, expires_at = excluded.expires_at, updated_at = clock_timestamp()

-- name: get_item
SELECT namespace, key, value, created_at, updated_at FROM runs.items
WHERE tenant = %(tenant)s AND namespace = %(namespace)s AND key = %(key)s
  AND (expires_at IS NULL OR expires_at > now())

-- name: refresh_items
-- A read puts off an item's end.
UPDATE runs.items SET expires_at = now() + ttl_minutes * interval '1 minute'
WHERE tenant = %(tenant)s AND ttl_minutes IS NOT NULL
  AND (namespace, key) IN (SELECT each.namespace::text[], each.key FROM json_to_recordset(%(items)s::json)
                           AS each (namespace text[], key text))

-- name: delete_item
DELETE FROM runs.items WHERE tenant = %(tenant)s AND namespace = %(namespace)s AND key = %(key)s

-- name: search_items
-- The lower bound lets the index find the prefix.
SELECT namespace, key, value, created_at, updated_at FROM runs.items
WHERE tenant = %(tenant)s AND namespace >= %(prefix)s
  AND namespace[1:cardinality(%(prefix)s::text[])] = %(prefix)s
  AND value @> %(filter)s AND (expires_at IS NULL OR expires_at > now())
ORDER BY updated_at DESC, namespace, key LIMIT %(limit)s OFFSET %(offset)s

-- name: list_embedded_items
SELECT namespace, key, value, created_at, updated_at, embedding FROM runs.items
WHERE tenant = %(tenant)s AND namespace >= %(prefix)s
  AND namespace[1:cardinality(%(prefix)s::text[])] = %(prefix)s
  AND value @> %(filter)s AND (expires_at IS NULL OR expires_at > now()) AND embedding_model = %(model)s
ORDER BY updated_at DESC LIMIT %(limit)s

-- name: list_namespaces
SELECT DISTINCT namespace[1:%(depth)s] AS namespace FROM runs.items
WHERE tenant = %(tenant)s AND (expires_at IS NULL OR expires_at > now())
  AND (%(prefix)s::text[] IS NULL OR namespace[1:cardinality(%(prefix)s::text[])] = %(prefix)s)
  AND (%(suffix)s::text[] IS NULL OR
       namespace[cardinality(namespace) - cardinality(%(suffix)s::text[]) + 1:] = %(suffix)s)
ORDER BY 1 LIMIT %(limit)s OFFSET %(offset)s

-- name: delete_expired_items
DELETE FROM runs.items WHERE (tenant, namespace, key) IN (
    SELECT tenant, namespace, key FROM runs.items WHERE expires_at < now() LIMIT %(limit)s
)

-- name: add_cron
INSERT INTO runs.crons (id, tenant, user_id, caller, assistant_id, thread_id, schedule, timezone, end_time,
                        next_run_at, enabled, on_run_completed, payload, metadata)
VALUES (%(id)s, %(tenant)s, %(user)s, %(caller)s, %(assistant)s, %(thread)s, %(schedule)s, %(timezone)s,
        %(end_time)s, %(next_run_at)s, %(enabled)s, %(on_run_completed)s, %(payload)s, %(metadata)s)

-- name: update_cron
UPDATE runs.crons SET schedule = %(schedule)s, timezone = %(timezone)s, end_time = %(end_time)s,
    next_run_at = %(next_run_at)s, enabled = %(enabled)s, on_run_completed = %(on_run_completed)s,
    payload = %(payload)s, metadata = %(metadata)s, updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND id = %(id)s

-- name: list_crons
SELECT id::text AS cron_id, assistant_id::text, thread_id, user_id, schedule, timezone, end_time,
       CASE WHEN enabled THEN next_run_at END AS next_run_date, enabled, on_run_completed, payload, metadata,
       created_at, updated_at
FROM runs.crons
WHERE tenant = %(tenant)s AND (%(id)s::uuid IS NULL OR id = %(id)s)
  AND (%(assistant)s::uuid IS NULL OR assistant_id = %(assistant)s)
  AND (%(thread)s::text IS NULL OR thread_id = %(thread)s)
  AND (%(enabled)s::boolean IS NULL OR enabled = %(enabled)s) AND metadata @> %(metadata)s
ORDER BY created_at DESC, id LIMIT %(limit)s OFFSET %(offset)s

-- name: count_crons
SELECT count(*) AS found FROM runs.crons
WHERE tenant = %(tenant)s AND (%(assistant)s::uuid IS NULL OR assistant_id = %(assistant)s)
  AND (%(thread)s::text IS NULL OR thread_id = %(thread)s)
  AND (%(enabled)s::boolean IS NULL OR enabled = %(enabled)s) AND metadata @> %(metadata)s

-- name: delete_cron
DELETE FROM runs.crons WHERE tenant = %(tenant)s AND id = %(id)s RETURNING id

-- name: lock_due_cron
-- Other replicas pass over it.
SELECT id::text, tenant, user_id, caller, assistant_id::text, thread_id, schedule, timezone, end_time,
       next_run_at, on_run_completed, payload, metadata
FROM runs.crons WHERE enabled AND next_run_at <= now()
ORDER BY next_run_at LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: advance_cron
UPDATE runs.crons SET next_run_at = %(next_run_at)s WHERE id = %(id)s

-- name: set_thread_ttl
UPDATE runs.threads SET ttl_minutes = %(minutes)s, ttl_strategy = %(strategy)s
WHERE tenant = %(tenant)s AND id = %(id)s
RETURNING id

-- name: list_expired_threads
SELECT id, tenant, ttl_strategy AS strategy FROM runs.threads AS thread
WHERE ttl_minutes IS NOT NULL AND updated_at < now() - ttl_minutes * interval '1 minute'
  AND NOT EXISTS (
      SELECT FROM runs.runs WHERE thread_id = thread.id
        AND (ended_at IS NULL OR ended_at > now() - thread.ttl_minutes * interval '1 minute')
  )
ORDER BY updated_at LIMIT %(limit)s

-- name: touch_thread
UPDATE runs.threads SET updated_at = now() WHERE id = %(id)s
