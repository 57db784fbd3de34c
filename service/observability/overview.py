"""Count conversations, runs and hand-offs of a period, from the database: all replicas, whenever they ran."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from core.postgres import Pool

# Conversations that were opened in the period. One that an agent handed over, or that a person took over,
# was not resolved by agents alone.
CONVERSATIONS_SQL: Final = """
WITH opened AS (
    SELECT id FROM sessions.sessions
    WHERE tenant = %(tenant)s AND opened_at >= %(since)s AND opened_at < %(until)s
), helped AS (
    SELECT thread_id, bool_or(action = 'effect') AS handed_over, bool_or(action = 'takeover') AS taken_over
    FROM audit.entries
    WHERE tenant = %(tenant)s AND at >= %(since)s
      AND (action = 'effect' AND tool = 'hand_over' OR action = 'takeover' AND outcome <> 'released')
    GROUP BY thread_id
)
SELECT count(*) AS opened,
       count(*) FILTER (WHERE helped.handed_over) AS handed_over,
       count(*) FILTER (WHERE helped.taken_over) AS taken_over,
       count(*) FILTER (WHERE helped.thread_id IS NULL) AS by_agents
FROM opened LEFT JOIN helped ON helped.thread_id = opened.id
"""
RUNS_SQL: Final = """
SELECT date_bin(%(seconds)s * interval '1 second', created_at, %(since)s) AS at, graph,
       count(*) AS runs,
       count(*) FILTER (WHERE status IN ('error', 'timeout')) AS failed,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - created_at))::float8 AS p50,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - created_at))::float8 AS p95
FROM runs.runs
WHERE tenant = %(tenant)s AND created_at >= %(since)s AND created_at < %(until)s AND graph <> ''
  AND status <> 'interrupted'
GROUP BY 1, 2 ORDER BY 1, 2
"""
# The audit trail's entries of runs hold what they used.
USAGE_SQL: Final = """
SELECT used ->> 'model' AS model, sum((used ->> 'input')::bigint)::bigint AS input,
       sum((used ->> 'output')::bigint)::bigint AS output
FROM audit.entries, jsonb_array_elements(details -> 'tokens') AS used
WHERE tenant = %(tenant)s AND action = 'run' AND at >= %(since)s AND at < %(until)s
GROUP BY 1 ORDER BY 1
"""
FIRST_TOKENS_SQL: Final = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95
FROM (
    SELECT (details ->> 'first_token_seconds')::float8 AS seconds FROM audit.entries
    WHERE tenant = %(tenant)s AND action = 'run' AND at >= %(since)s AND at < %(until)s
) AS runs
"""
NOW_SQL: Final = """
SELECT count(*) FILTER (WHERE status = 'running') AS running,
       count(*) FILTER (WHERE status = 'pending') AS pending,
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE status = 'pending')), 0)::float8
           AS oldest_pending_seconds
FROM runs.runs WHERE tenant = %(tenant)s AND ended_at IS NULL AND graph <> ''
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A period in parts.

    Attributes:
        since: Its begin.
        until: Its end.
        seconds: The length of a part.
    """

    since: datetime
    until: datetime
    seconds: float


class OverviewReader:
    """Reads the numbers of a tenant.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def count_conversations(self, tenant: str, period: Period) -> dict[str, int]:
        """Return ``opened``, ``by_agents``, ``handed_over`` and ``taken_over``."""
        return (await self._fetch(CONVERSATIONS_SQL, tenant, period))[0]

    async def count_runs(self, tenant: str, period: Period) -> Sequence[dict[str, Any]]:
        """Return, for each part of the period and each graph, its runs and how long they took, in seconds."""
        return await self._fetch(RUNS_SQL, tenant, period)

    async def count_open_runs(self, tenant: str, period: Period) -> dict[str, Any]:
        """Return ``running``, ``pending`` and ``oldest_pending_seconds`` of now."""
        return (await self._fetch(NOW_SQL, tenant, period))[0]

    async def count_tokens(self, tenant: str, period: Period) -> Sequence[dict[str, Any]]:
        """Return the ``input`` and ``output`` tokens of each ``model``, as providers counted them."""
        return await self._fetch(USAGE_SQL, tenant, period)

    async def measure_first_tokens(self, tenant: str, period: Period) -> dict[str, Any]:
        """Return ``p50`` and ``p95`` of the time from a run's start to its first token, in seconds."""
        return (await self._fetch(FIRST_TOKENS_SQL, tenant, period))[0]

    async def _fetch(self, query: str, tenant: str, period: Period) -> list[dict[str, Any]]:
        values = {
            "tenant": tenant,
            "since": period.since,
            "until": period.until,
            "seconds": period.seconds,
        }
        async with self._pool.connection() as connection:
            return list(await (await connection.execute(query.encode(), values)).fetchall())
