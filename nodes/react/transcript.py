"""What the model sees of a run: earlier turns, the task, old iterations in short, the latest in full.

The order is fixed and only the end changes from call to call, so that a provider's prompt cache hits.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage

from nodes.react.state import ReactState, TraceEntry
from nodes.shared.context import build_background_messages
from nodes.shared.conversation import select_history
from nodes.shared.structured import build_unreadable_notice

# Iterations shown in full; of older ones the model sees a line per call.
FULL_ITERATIONS = 3
# Questions and answers of earlier turns.
HISTORY_MESSAGES = 20
_LINE_CHARACTERS = 160


def build_transcript(state: ReactState, system: str, note: str = "") -> list[AnyMessage]:
    """Return the messages for the next thought or reflection.

    Args:
        state: The run's state.
        system: The whole system prompt.
        note: How far the run is; empty: nothing is said of it.

    Returns:
        The system prompt, earlier turns, the task, its background and expected outcome, a note on older
        iterations, the last :data:`FULL_ITERATIONS` with their tool messages and reflections, the note, and
        a notice if the last reply could not be read.
    """
    earlier, turn = split_turns(state)
    first_full = state["iterations"] - FULL_ITERATIONS + 1
    messages: list[AnyMessage] = [
        SystemMessage(system),
        *select_history(earlier, HISTORY_MESSAGES, state["context"]),
        HumanMessage(state["task"]),
        *build_background_messages(state["background"]),
    ]
    if state["expected_outcome"]:
        messages.append(HumanMessage(f"[Expected outcome] {state['expected_outcome']}"))
    messages += _summarise_iterations(state["trace"], first_full)
    messages += _show_iterations(turn, state["trace"], first_full)
    if note:
        messages.append(HumanMessage(note))
    if state["unreadable"]:
        messages.append(build_unreadable_notice(state["unreadable"]))
    return messages


def list_known_texts(state: ReactState) -> list[str]:
    """Return what the model is shown beside the results of this run."""
    earlier, _ = split_turns(state)
    history = select_history(earlier, HISTORY_MESSAGES, state["context"])
    told = [state["instruction"], state["background"], state["expected_outcome"]]
    return [*(message.text for message in history), *told]


def split_turns(state: ReactState) -> tuple[Sequence[AnyMessage], Sequence[AnyMessage]]:
    """Return the messages before this run, and those it has added after its task."""
    messages = state["messages"]
    start = next(index for index, message in enumerate(messages) if message.id == state["turn"])
    return messages[:start], messages[start + 1 :]


def _summarise_iterations(trace: Sequence[TraceEntry], first_full: int) -> Iterator[HumanMessage]:
    """Yield one message with a line for each call before ``first_full``, if there is any."""
    old = [entry for entry in trace if entry["iteration"] < first_full]
    if old:
        yield HumanMessage("\n".join(["[Earlier steps]", *map(_format_entry, old)]))


def _format_entry(entry: TraceEntry) -> str:
    action, observation = entry["action"], entry["observation"]
    call = f"{action['tool']}({_shorten(str(action['args']))})" if action else "no action"
    if observation is None:
        return f"{entry['iteration']}. {call}"
    if not observation["success"]:
        return f"{entry['iteration']}. {call} failed: {_shorten(observation['error']['message'])}"
    result = (entry["reflection"] or {}).get("reasoning") or str(observation["result"])
    return f"{entry['iteration']}. {call}: {_shorten(result)}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LINE_CHARACTERS else f"{line[: _LINE_CHARACTERS - 1]}…"


def _show_iterations(
    turn: Sequence[AnyMessage], trace: Sequence[TraceEntry], first_full: int
) -> Iterator[AnyMessage]:
    """Yield the messages of each iteration from ``first_full`` on, and its reflection."""
    reflections = {
        iteration: next(entries)["reflection"]
        for iteration, entries in groupby(trace, key=lambda entry: entry["iteration"])
    }
    for iteration, messages in enumerate(_split_iterations(turn), start=1):
        if iteration < first_full:
            continue
        yield from messages
        if reflection := reflections.get(iteration):
            suggestion = reflection["suggested_next_action"]
            hint = f" Suggested next action: {suggestion}" if suggestion else ""
            yield HumanMessage(f"[Reflection after step {iteration}] {reflection['reasoning']}{hint}")


def _split_iterations(turn: Sequence[AnyMessage]) -> list[list[AnyMessage]]:
    """Return a list of messages per thought: the thought and what followed it."""
    iterations: list[list[AnyMessage]] = []
    for message in turn:
        if isinstance(message, AIMessage):
            iterations.append([])
        iterations[-1].append(message)
    return iterations
