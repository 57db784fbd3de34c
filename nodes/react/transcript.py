"""What the model sees of a run: earlier turns, the task, old iterations in short, the last ones in full.

The order is fixed and only the tail changes from call to call, so a provider's prompt cache hits.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage

from nodes.react.state import ReactState, TraceEntry
from nodes.shared.context import build_background_messages
from nodes.shared.conversation import select_history
from nodes.shared.structured import build_unreadable_notice

# Iterations shown in full; of older ones the model sees a line each.
FULL_ITERATIONS = 3
# Messages of earlier turns shown: what was asked and what was answered.
HISTORY_MESSAGES = 20
_LINE_CHARACTERS = 160


def transcript(state: ReactState, system: str) -> list[AnyMessage]:
    """The messages for the next thought.

    Args:
        state: The run's state.
        system: The system prompt.

    Returns:
        System prompt with the run's instruction, earlier turns, the task, its background, a note on older
        iterations, the last :data:`FULL_ITERATIONS` with their tool messages and reflections, and a notice
        when the last reply could not be read.
    """
    earlier, turn = split_turns(state)
    first_full = state["iterations"] - FULL_ITERATIONS + 1
    system = f"{system}\n\n{state['guidance']}" if state["guidance"] else system
    messages: list[AnyMessage] = [
        SystemMessage(system),
        # A thread begun before there were contexts has none.
        *select_history(earlier, HISTORY_MESSAGES, state["context"]),
        HumanMessage(state["task"]),
        *build_background_messages(state["background"]),
    ]
    messages += _short(state["trace"], first_full)
    messages += _full(turn, state["trace"], first_full)
    if state["unreadable"]:
        messages.append(build_unreadable_notice(state["unreadable"]))
    return messages


def split_turns(state: ReactState) -> tuple[Sequence[AnyMessage], Sequence[AnyMessage]]:
    """The messages before this run, and those the run has made after its task."""
    messages = state["messages"]
    start = next(index for index, message in enumerate(messages) if message.id == state["turn"])
    return messages[:start], messages[start + 1 :]


def _short(trace: Sequence[TraceEntry], first_full: int) -> Iterator[HumanMessage]:
    old = [entry for entry in trace if entry["iteration"] < first_full]
    if old:
        yield HumanMessage("\n".join(["[Earlier steps]", *map(_line, old)]))


def _line(entry: TraceEntry) -> str:
    action, observation = entry["action"], entry["observation"]
    did = f"{action['tool']}({_clip(str(action['args']))})" if action else "no action"
    if observation is None:
        return f"{entry['iteration']}. {did}"
    if not observation["success"]:
        return f"{entry['iteration']}. {did} failed: {_clip(observation['error']['message'])}"
    learned = (entry["reflection"] or {}).get("reasoning") or str(observation["result"])
    return f"{entry['iteration']}. {did}: {_clip(learned)}"


def _clip(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LINE_CHARACTERS else f"{flat[: _LINE_CHARACTERS - 1]}…"


def _full(turn: Sequence[AnyMessage], trace: Sequence[TraceEntry], first_full: int) -> Iterator[AnyMessage]:
    reflections = {
        iteration: next(entries)["reflection"]
        for iteration, entries in groupby(trace, key=lambda entry: entry["iteration"])
    }
    for iteration, messages in enumerate(_iterations(turn), start=1):
        if iteration < first_full:
            continue
        yield from messages
        if reflection := reflections.get(iteration):
            suggested = reflection["suggested_next_action"]
            hint = f" Suggested next action: {suggested}" if suggested else ""
            yield HumanMessage(f"[Reflection after step {iteration}] {reflection['reasoning']}{hint}")


def _iterations(turn: Sequence[AnyMessage]) -> list[list[AnyMessage]]:
    """The turn's messages, a list for each thought with what followed it."""
    iterations: list[list[AnyMessage]] = []
    for message in turn:
        if isinstance(message, AIMessage):
            iterations.append([])
        iterations[-1].append(message)
    return iterations
