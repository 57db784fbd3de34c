"""``database_query``: rows of a named database."""

from typing import cast

from pydantic import JsonValue

from workflows.ports import Executor, SqlReader, StepCall
from workflows.steps.database_query import DatabaseQuery
from workflows.templates import Template


def database_query(sql: SqlReader) -> Executor[DatabaseQuery]:
    """The executor."""

    async def run(step: DatabaseQuery, call: StepCall) -> JsonValue:
        parameters = {name: Template(value).render(call.context) for name, value in step.parameters.items()}
        rows = await sql.rows(
            step.connection, step.sql, parameters, limit=step.row_limit, timeout=step.timeout_seconds
        )
        return cast("JsonValue", rows)

    return run
