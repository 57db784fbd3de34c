"""The manager's subtasks: their schemas, whether they can be carried out, and which can start.

LLMCompiler (Kim et al. 2023, arXiv 2312.04511) starts a task the moment its dependencies are done. Here it
starts with the next wave, because each wave ends with a checkpoint from which a killed run continues.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field, create_model

from core.texts import make_storable
from nodes.hierarchical.state import Subtask, build_id, get_number

# Per round: more cannot be told apart, neither by the manager nor by the reader of the result.
MAX_SUBTASKS = 8
TASK_CHARACTERS = 4_000
# Reported at once; a reply with more is wrong as a whole.
_MAX_FAULTS = 20


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


def limit_agents(schema: type[PlanT], agents: Collection[str]) -> type[PlanT]:
    """Return the schema with the names of these sub-agents as an enumeration.

    The names and the maximum count are in the JSON schema only: a reply that violates them is still read, and
    the manager gets all faults at once (see :func:`find_faults`).
    """
    planned = create_model(
        "PlannedSubtask",
        __base__=PlannedSubtask,
        __doc__=PlannedSubtask.__doc__,
        agent=(str, _describe_field(PlannedSubtask, "agent", enum=list(agents))),
    )
    subtasks: Any = (list[planned], _describe_field(schema, "subtasks", maxItems=MAX_SUBTASKS))
    return create_model(schema.__name__, __base__=schema, __doc__=schema.__doc__, subtasks=subtasks)


def _describe_field(schema: type[BaseModel], name: str, **more: Any) -> Any:
    return Field(description=schema.model_fields[name].description, json_schema_extra=more)


def find_faults(
    planned: Sequence[PlannedSubtask], agents: Collection[str], earlier: Sequence[Subtask]
) -> list[str]:
    """Return every reason why the subtasks cannot be carried out; empty when they can.

    Args:
        planned: The manager's new subtasks.
        agents: Names of the existing sub-agents.
        earlier: The subtasks of earlier rounds, on which new ones may depend.
    """
    numbers = [subtask.number for subtask in planned]
    faults = []
    if not planned:
        faults.append("there is no subtask: name at least one")
    if len(planned) > MAX_SUBTASKS:
        faults.append(f"there are {len(planned)} subtasks: name at most {MAX_SUBTASKS}")
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    faults += [f"the number {number} is used more than once" for number in repeated]
    known = {get_number(subtask["id"]): subtask for subtask in earlier}
    for subtask in planned:
        faults += _find_own_faults(subtask, agents)
        faults += _find_dependency_faults(subtask, set(numbers), known)
    if blocked := _find_cycles(planned):
        listed = ", ".join(map(str, blocked))
        faults.append(f"these can never start, as they wait for themselves or for each other: {listed}")
    return faults[:_MAX_FAULTS]


def number_subtasks(planned: Sequence[PlannedSubtask], earlier: Sequence[Subtask]) -> list[Subtask]:
    """Return the subtasks as the run stores them, with ids that continue after the earlier ones.

    A number used in the same reply means that subtask, even if an earlier subtask has it too.

    Args:
        planned: Subtasks without faults.
        earlier: Those of earlier rounds.
    """
    ids = {subtask.number: build_id(number) for number, subtask in enumerate(planned, start=len(earlier) + 1)}
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


def _find_own_faults(subtask: PlannedSubtask, agents: Collection[str]) -> Iterator[str]:
    who = f"subtask {subtask.number}"
    if subtask.agent not in agents:
        yield f"{who}: there is no sub-agent {subtask.agent!r}; there are: {', '.join(agents)}"
    length = len(make_storable(subtask.task).strip())
    if not length:
        yield f"{who}: its task is empty"
    if length > TASK_CHARACTERS:
        yield f"{who}: its task has {length} characters; at most {TASK_CHARACTERS}"


def _find_dependency_faults(
    subtask: PlannedSubtask, numbers: Collection[int], known: Mapping[int, Subtask]
) -> Iterator[str]:
    for number in dict.fromkeys(subtask.depends_on):
        if number in numbers:
            continue
        if number not in known:
            yield f"subtask {subtask.number} depends on {number}, which does not exist"
        elif (status := known[number]["status"]) != "done":
            yield f"subtask {subtask.number} depends on {number}, which is {status}"


def _find_cycles(planned: Sequence[PlannedSubtask]) -> list[int]:
    """Return the numbers of the subtasks in a cycle, or behind one."""
    waiting = {subtask.number: set(subtask.depends_on) for subtask in planned}
    while ready := [number for number, needs in waiting.items() if not needs & waiting.keys()]:
        for number in ready:
            del waiting[number]
    return sorted(waiting)


def find_ready(subtasks: Sequence[Subtask]) -> list[Subtask]:
    """Return the pending subtasks whose dependencies are all done."""
    done = {subtask["id"] for subtask in subtasks if subtask["status"] == "done"}
    return [
        subtask
        for subtask in subtasks
        if subtask["status"] == "pending" and done >= set(subtask["depends_on"])
    ]


def skip_blocked(subtasks: Sequence[Subtask]) -> list[Subtask]:
    """Return the pending subtasks that can never start, with status ``skipped`` and the reason."""
    lost = {each["id"]: each["status"] for each in subtasks if each["status"] in {"failed", "skipped"}}
    pending = [subtask for subtask in subtasks if subtask["status"] == "pending"]
    skipped: list[Subtask] = []
    while blocked := [subtask for subtask in pending if lost.keys() & set(subtask["depends_on"])]:
        for subtask in blocked:
            cause = next(each for each in subtask["depends_on"] if each in lost)
            outcome = "failed" if lost[cause] == "failed" else "was skipped"
            reason = f"it depends on {cause}, which {outcome}"
            skipped.append({**subtask, "status": "skipped", "reason": reason})
            pending.remove(subtask)
        lost |= {subtask["id"]: "skipped" for subtask in blocked}
    return skipped
