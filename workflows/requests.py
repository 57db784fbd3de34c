"""The request to run a workflow: of ``/v1/workflows``, and of the graph ``workflow``."""

from typing import Annotated, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from workflows.json_values import check_size

Values: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(check_size)]


class WorkflowRequest(BaseModel):
    """A workflow, one of the library by its name or a definition, and its input."""

    # A misspelt field must not silently become a default.
    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=64, description="Name of a workflow of the library; empty: a definition")
    definition: dict[str, JsonValue] = Field(
        {}, description="A definition that fits /v1/workflows/schema; empty: one of the library"
    )
    input: Values = Field({}, description="The input that the definition declares")

    @model_validator(mode="after")
    def _check_one_of_both(self) -> Self:
        if bool(self.name) == bool(self.definition):
            raise ValueError("give either the name of a workflow of the library, or a definition")
        return self
