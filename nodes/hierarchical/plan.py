"""What the manager writes, and whether it can be carried out."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field, create_model

from core.texts import make_storable
from nodes.hierarchical.state import Subtask, build_id, number_of

# Of one round: more cannot be kept apart, neither by the manager nor by who reads the result.
MAX_SUBTASKS = 8
TASK_CHARACTERS = 4_000
# Told back at once; a reply with more is wrong as a whole.
_MOST_FAULTS = 20


class PlannedSubtask(BaseModel):
    """A part of the task, for one sub-agent."""

    number: int = Field(description="Number of the subtask, by which others depend on it")
    agent: str = Field(description="The sub-agent that does it")
    task: str = Field(
        description="What the sub-agent is to do, with all it needs to know: it sees nothing else but the "
        "results of the subtasks this one depends on"
    )
    depends_on: list[int] = Field(
        [], description="Numbers of the subtasks whose results this one needs; none: it starts at once"
    )


class Decomposition(BaseModel):
    """The task, divided over the sub-agents."""

    why: str = Field(description="Why the task is divided like this, in one or two sentences")
    subtasks: list[PlannedSubtask] = Field(description="The parts of the task; one for a simple task")


class Decision(BaseModel):
    """What is next, after a round of subtasks."""

    why: str = Field(description="What the results say about the task, in one or two sentences")
    done: bool = Field(description="Whether nothing remains to be done for the task")
    success: bool = Field(description="Whether the task was carried out, judged by the results alone")
    result: str = Field(
        description="The complete answer for whoever asked, when the task is done; else the best one so far"
    )
    subtasks: list[PlannedSubtask] = Field(
        description="What remains to be done, when the task is not done; else empty"
    )


PlanT = TypeVar("PlanT", Decomposition, Decision)


def over(schema: type[PlanT], agents: Collection[str]) -> type[PlanT]:
    """The schema with the names of these sub-agents as an enumeration.

    The names and the count are in the JSON schema only: a reply that breaks them is read, and the manager is
    told of that together with all else that is wrong (see :func:`faults`).
    """
    planned = create_model(
        "PlannedSubtask",
        __base__=PlannedSubtask,
        __doc__=PlannedSubtask.__doc__,
        agent=(str, _described(PlannedSubtask, "agent", enum=list(agents))),
    )
    subtasks: Any = (list[planned], _described(schema, "subtasks", maxItems=MAX_SUBTASKS))
    return create_model(schema.__name__, __base__=schema, __doc__=schema.__doc__, subtasks=subtasks)


def _described(schema: type[BaseModel], name: str, **more: Any) -> Any:
    return Field(description=schema.model_fields[name].description, json_schema_extra=more)


def faults(
    planned: Sequence[PlannedSubtask], agents: Collection[str], earlier: Sequence[Subtask]
) -> list[str]:
    """Why the subtasks cannot be carried out, all of it; empty when they can.

    Args:
        planned: The subtasks the manager named.
        agents: Names of the sub-agents there are.
        earlier: The subtasks of earlier rounds, which new ones may depend on.
    """
    numbers = [subtask.number for subtask in planned]
    found = []
    if not planned:
        found.append("there is no subtask: name at least one")
    if len(planned) > MAX_SUBTASKS:
        found.append(f"there are {len(planned)} subtasks: name at most {MAX_SUBTASKS}")
    found += [f"the number {number} is used more than once" for number in _repeated(numbers)]
    known = {number_of(subtask["id"]): subtask for subtask in earlier}
    for subtask in planned:
        found += _own_faults(subtask, agents)
        found += _dependency_faults(subtask, set(numbers), known)
    if waiting := _never_ready(planned):
        named = ", ".join(map(str, waiting))
        found.append(f"these can never begin, as they wait for themselves or for each other: {named}")
    return found[:_MOST_FAULTS]


def numbered(planned: Sequence[PlannedSubtask], earlier: Sequence[Subtask]) -> list[Subtask]:
    """The subtasks as the run keeps them, with ids that go on where the earlier ones end.

    A number that stands for a subtask of the same reply means that one, also where an earlier subtask has it.

    Args:
        planned: Subtasks without faults.
        earlier: Those of earlier rounds.
    """
    free = len(earlier) + 1
    ids = {subtask.number: build_id(free + at) for at, subtask in enumerate(planned)}
    return [
        Subtask(
            id=ids[subtask.number],
            agent=subtask.agent,
            task=make_storable(subtask.task).strip(),
            depends_on=[ids.get(number) or build_id(number) for number in dict.fromkeys(subtask.depends_on)],
            status="pending",
            result="",
            reason=None,
        )
        for subtask in planned
    ]


def _repeated(numbers: Sequence[int]) -> list[int]:
    return sorted({number for number in numbers if numbers.count(number) > 1})


def _own_faults(subtask: PlannedSubtask, agents: Collection[str]) -> Iterator[str]:
    who = f"subtask {subtask.number}"
    if subtask.agent not in agents:
        yield f"{who}: there is no sub-agent {subtask.agent!r}; there are: {', '.join(agents)}"
    length = len(make_storable(subtask.task).strip())
    if not length:
        yield f"{who}: its task is empty"
    if length > TASK_CHARACTERS:
        yield f"{who}: its task has {length} characters; at most {TASK_CHARACTERS}"


def _dependency_faults(
    subtask: PlannedSubtask, numbers: Collection[int], known: Mapping[int, Subtask]
) -> Iterator[str]:
    for number in dict.fromkeys(subtask.depends_on):
        if number in numbers:
            continue
        if number not in known:
            yield f"subtask {subtask.number} depends on {number}, which there is not"
        elif (status := known[number]["status"]) != "done":
            yield f"subtask {subtask.number} depends on {number}, which is {status}"


def _never_ready(planned: Sequence[PlannedSubtask]) -> list[int]:
    """Numbers of the subtasks in a cycle, or behind one."""
    waiting = {subtask.number: set(subtask.depends_on) for subtask in planned}
    while ready := [number for number, needs in waiting.items() if not needs & waiting.keys()]:
        for number in ready:
            del waiting[number]
    return sorted(waiting)
