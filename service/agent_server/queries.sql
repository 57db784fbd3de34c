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
