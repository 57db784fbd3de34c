"""``database_query``: read a named database."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from workflows.definition.base import StepBase
from workflows.fields import TemplateMap
from workflows.templates import OPEN

# What psycopg reads in a statement: %(name)s, or %% for a percent sign.
_PLACEHOLDER: Final = re.compile(r"%(?:\((?P<name>[A-Za-z_]\w*)\)s|(?P<percent>%)|(?P<stray>.|$))", re.DOTALL)
_COMMENT: Final = re.compile(r"\s+|--[^\n]*(?:\n|$)|/\*.*?\*/", re.DOTALL)
_READS: Final = re.compile(r"(select|with|values|table)\b", re.IGNORECASE)


def _reads(sql: str) -> str:
    if OPEN in sql:
        raise ValueError("holds {{: a statement is no template; write %(name)s and give it in parameters")
    if "\0" in sql:
        raise ValueError("holds a NUL character")
    at = 0
    while found := _COMMENT.match(sql, at):
        at = found.end()
    if not _READS.match(sql, at):
        raise ValueError("must be one SELECT, WITH, VALUES or TABLE statement")
    return sql


class DatabaseQuery(StepBase):
    """Read rows in a transaction that cannot write; output: a list of objects."""

    type: Literal["database_query"]
    connection: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = Field(
        description="One of WORKFLOW_CONNECTIONS"
    )
    sql: Annotated[str, StringConstraints(min_length=6, max_length=20_000), AfterValidator(_reads)] = Field(
        description="One statement; values as %(name)s and a percent sign as %%"
    )
    parameters: TemplateMap = Field({})
    row_limit: int = Field(1_000, ge=1, le=10_000, description="More rows are a failure")

    @model_validator(mode="after")
    def _binds_what_it_names(self) -> Self:
        found = list(_PLACEHOLDER.finditer(self.sql))
        if any(one["stray"] is not None for one in found):
            raise ValueError("sql: a % that is not %(name)s; write a percent sign as %%")
        named = {one["name"] for one in found if one["name"]}
        if missing := sorted(named - self.parameters.keys()):
            raise ValueError(f"parameters: missing {', '.join(missing)}, which sql names")
        if unused := sorted(self.parameters.keys() - named):
            raise ValueError(f"parameters: {', '.join(unused)} not named in sql")
        return self
