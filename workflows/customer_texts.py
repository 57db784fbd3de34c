"""Check that a workflow sends customers only texts of agents that were accepted.

An ``agent`` step ends without an error when its text was rejected: its output says so. What is sent of it has
to stand inside a condition on that, or after an approval that shows it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote

from pydantic import JsonValue

from workflows.conditions import ALWAYS, list_condition_requirements
from workflows.expressions import Expression, Path, Requirement
from workflows.faults import Fault
from workflows.outline import (
    Outline,
    OutlineEntry,
    is_pattern,
    list_children,
    list_references,
    runs_children_in_parallel,
)
from workflows.schema import Conditional, FanOutFanIn
from workflows.steps import CRM_SCHEME, AgentCall, ApiCall, Approval, DataProcessing, Retry
from workflows.templates import OPEN, Template

_READING_METHODS: Final = frozenset({"GET", "HEAD"})
# What graphs call the field of their output that says whether it may be used.
_SUCCESS_FIELDS: Final = ("success", "completed")


def sends_message(method: str, url: str, body: JsonValue) -> bool:
    """Return whether a request makes the CRM send a message to a customer.

    A message ``from_me: false`` is one that the customer wrote.
    """
    if method in _READING_METHODS or not url.lower().startswith(CRM_SCHEME):
        return False
    path = unquote(url[len(CRM_SCHEME) :].partition("?")[0].partition("#")[0])
    is_incoming = isinstance(body, dict) and body.get("from_me") is False
    return path.strip("/").partition("/")[0].lower() == "messages" and not is_incoming


def iter_unchecked_texts(outline: Outline) -> Iterator[Fault]:
    """Yield the steps that send what an agent wrote without anything that accepted it."""
    origins = _Origins(outline)
    for entry in outline.values():
        if not isinstance(entry.step, ApiCall) or not _may_send_message(entry.step):
            continue
        body = entry.step.body
        has_text = isinstance(body, dict) and "text" in body
        text, field = (body["text"], "body.text") if isinstance(body, dict) and has_text else (body, "body")
        paths = Template(text).list_paths()
        for agent in sorted(origins.find_agents(entry, paths)):
            if not _is_accepted(entry, agent, origins, via_item=any(path[0] == "item" for path in paths)):
                yield Fault(f"{entry.path}.{field}", entry.step.id, field, _build_message(agent))


def _may_send_message(step: ApiCall) -> bool:
    """Return whether a step sends a message, or may do so when its address is known."""
    start = step.url[len(CRM_SCHEME) :].lstrip("/").partition("/")[0]
    if step.url.lower().startswith(CRM_SCHEME) and OPEN in start.partition("?")[0]:
        return step.method not in _READING_METHODS
    return sends_message(step.method, step.url, step.body)


def _build_message(agent: str) -> str:
    return (
        f"sends what the agent step {agent!r} wrote to a customer, accepted or not: put this step into a "
        f"conditional whose condition is steps.{agent}.output.success, or after an approval whose details "
        "show it"
    )


class _Origins:
    """The agents that wrote what each step outputs.

    A step refers to steps before it, so that one walk in the order of the definition finds all origins; a
    reference to a later step is a fault of its own.
    """

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.approvals: dict[str, list[OutlineEntry]] = defaultdict(list)
        self._agents: dict[str, frozenset[str]] = {}
        for entry in outline.values():
            step = entry.step
            if isinstance(step, AgentCall):
                self._agents[step.id] = frozenset({step.id})
            elif isinstance(step, DataProcessing) and not _keeps_only_successes(step):
                self._agents[step.id] = self._find_all_agents(entry)
            elif isinstance(step, Approval):
                for agent in self._find_all_agents(entry):
                    self.approvals[agent].append(entry)

    def find_agents(self, entry: OutlineEntry, paths: Iterable[Path]) -> frozenset[str]:
        """Return the agent steps whose output a step reads by these paths, directly or as processed data."""
        agents: set[str] = set()
        for path in paths:
            if path[0] == "item" and not isinstance(entry.step, DataProcessing):
                agents |= self._find_agents_of_item(entry)
            elif path[0] == "steps" and len(path) > 1 and path[2:3] in {(), ("output",)}:
                agents |= self._read(path[1])
        return frozenset(agents)

    def _find_all_agents(self, entry: OutlineEntry) -> frozenset[str]:
        return self.find_agents(entry, [path for _, path in list_references(entry.step)])

    def _find_agents_of_item(self, entry: OutlineEntry) -> frozenset[str]:
        for repeater in map(self.outline.__getitem__, reversed(entry.repeaters)):
            if isinstance(repeater.step, FanOutFanIn):
                return self.find_agents(repeater, Expression.parse(repeater.step.for_each).list_paths())
        return frozenset()

    def _read(self, step_id: str) -> frozenset[str]:
        entry = self.outline.get(step_id)
        if entry is None or not is_pattern(entry.step):
            return self._agents.get(step_id, frozenset())
        # Fan-in steps read the output of their pattern and are no part of it.
        outputs = [steps for field, steps in list_children(entry.step) if field != "fan_in_steps"]
        return frozenset().union(*(self._read(child.id) for steps in outputs for child in steps))


def _keeps_only_successes(step: DataProcessing) -> bool:
    if step.operation != "filter" or step.where is None:
        return False
    requirements = Expression.parse(step.where).list_requirements()
    return any((("item", field), True) in requirements for field in _SUCCESS_FIELDS)


def _is_accepted(entry: OutlineEntry, agent: str, origins: _Origins, *, via_item: bool) -> bool:
    """Return whether a step runs only if what the agent wrote was accepted."""
    requirements = set(_list_requirements(entry, origins.outline))
    holders: list[Path] = [("steps", agent, "output")]
    if via_item:
        holders += [("item",), ("item", "output")]
    if any(((*holder, field), True) in requirements for holder in holders for field in _SUCCESS_FIELDS):
        return True
    return any(
        _is_approved(entry, approval, requirements, origins.outline) for approval in origins.approvals[agent]
    )


def _list_requirements(entry: OutlineEntry, outline: Outline) -> Iterator[Requirement]:
    yield from list_condition_requirements(entry.step.when)
    for pattern, field in entry.ancestors:
        step = outline[pattern].step
        yield from list_condition_requirements(step.when)
        if isinstance(step, Conditional) and field == "then":
            yield from list_condition_requirements(step.condition)


def _is_approved(
    entry: OutlineEntry, approval: OutlineEntry, requirements: set[Requirement], outline: Outline
) -> bool:
    """Return whether a step runs only after a person's approval."""
    step = approval.step
    if (("steps", step.id, "output", "decision"), "approve") in requirements:
        return True
    if not isinstance(step, Approval) or step.on_reject != "fail" or step.when != ALWAYS:
        return False
    outcome = step.on_error.then if isinstance(step.on_error, Retry) else step.on_error
    return outcome == "fail" and _must_run_before(approval, entry, outline)


def _must_run_before(first: OutlineEntry, then: OutlineEntry, outline: Outline) -> bool:
    """Return whether a step stands before another in the same list, or before a pattern around it."""
    depth = len(first.ancestors)
    if then.ancestors[:depth] != first.ancestors:
        return False
    if first.ancestors:
        pattern, field = first.ancestors[-1]
        if runs_children_in_parallel(outline[pattern].step, field):
            return False
    sibling = then.ancestors[depth][0] if len(then.ancestors) > depth else then.step.id
    return outline[sibling].position > first.position
