"""Definitions as HTTP takes them: one of the library, or one that was sent."""

from pydantic import JsonValue

from core.errors import InvalidDefinition, NotFound
from service.lifespan import Service
from service.routes.workflow_models import Library, LibraryEntry, RunWorkflow, StepFault, Validated
from workflows.definition.workflow import Definition
from workflows.loader import LIBRARY
from workflows.outline import places
from workflows.steps.agent_call import AgentCall
from workflows.validation import Fault, read_definition
from workflows.validation.reading import read_input, refused


def library() -> Library:
    """The named definitions."""
    return Library(
        workflows=[
            LibraryEntry(
                name=one.name,
                description=one.description,
                version=one.version,
                definition=one.model_dump(mode="json", exclude_unset=True),
            )
            for one in LIBRARY.values()
        ]
    )


def named_or_given(service: Service, asked: RunWorkflow) -> Definition:
    """The definition to run.

    Raises:
        NotFound: The library has none of the name.
        InvalidDefinition: What was sent has faults.
    """
    if asked.name is not None:
        if asked.name not in LIBRARY:
            raise NotFound(
                f"there is no workflow {asked.name!r} in the library", details={"names": sorted(LIBRARY)}
            )
        return LIBRARY[asked.name]
    return _checked(service, asked.definition)


def input_for(definition: Definition, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The run's input with the defaults in it. Raises InvalidDefinition where it does not fit."""
    return read_input(definition, given)


def validated(service: Service, given: JsonValue) -> Validated:
    """Everything wrong with a definition."""
    try:
        _checked(service, given)
    except InvalidDefinition as error:
        return Validated(valid=False, faults=[StepFault(**fault) for fault in error.details["faults"]])
    return Validated(valid=True, faults=[])


def _checked(service: Service, given: JsonValue) -> Definition:
    """A definition whose agents this service has."""
    definition = read_definition(given)
    known = service.workflows.agents
    problem = f"must be one of {', '.join(sorted(known))}"
    faults = [
        Fault(f"{place.path}.graph", place.step.id, "graph", problem)
        for place in places(definition)
        if isinstance(place.step, AgentCall) and place.step.graph not in known
    ]
    if faults:
        raise refused(faults)
    return definition
