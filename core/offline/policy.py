"""The policy: which tools to call next, or that it is time to answer.

First it gathers: reading tools by relevance, two at a time. Then it acts: effects the task asks for, each
once. Then it answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from core.offline.composing import Composer
from core.offline.conversation import Call, Conversation
from core.offline.fields import Field, value_for
from core.offline.lexicon import (
    DELIVERY_OBJECTS,
    DELIVERY_REQUESTS,
    DELIVERY_VERBS,
    ESCALATION_OBJECTS,
    ESCALATION_VERBS,
    FAULT_WORDS,
)
from core.offline.observations import Observation
from core.offline.tools import Tool, arguments_for, relevance
from core.offline.words import concepts, is_general, requested_verbs

PARALLEL: Final = 2
ROUNDS: Final = 3
_ATTEMPTS: Final = 2
_RELEVANT: Final = 0.15
_RELEVANT_TO_MORE: Final = 0.5
_TELLING: Final = 1.0
_FITTING: Final = 2.0


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A tool call to make."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to reply: a text, and the calls that go with it (none: the text is the answer)."""

    text: str
    calls: tuple[PlannedCall, ...] = ()


@dataclass(frozen=True)
class Policy:
    """Decides the next reply of a conversation with tools.

    Attributes:
        composer: The conversation and what can be said about it.
        tools: The bound tools.
    """

    composer: Composer
    tools: tuple[Tool, ...]

    @property
    def conversation(self) -> Conversation:
        """The conversation."""
        return self.composer.conversation

    def decide(self) -> Decision:
        """Decide: gather information, else act, else answer."""
        if not self.conversation.task.strip():
            return Decision(self.answer())
        gathering = self._gathering()
        if gathering:
            return Decision(self._write_thought(gathering), tuple(gathering))
        acting = self._acting()
        if acting:
            return Decision(self._purpose(acting), (acting,))
        return Decision(self.answer())

    def force_call(self, name: str | None) -> Decision:
        """Return a forced call of the named tool, or of the most relevant one."""
        chosen = next((tool for tool in self.tools if tool.name == name), None)
        tool = chosen or max(self.tools, key=lambda each: self._scores[each.name])
        call = PlannedCall(tool.name, arguments_for(tool, self.composer).values)
        return Decision(self._write_thought([call]) if tool.reads else self._purpose(call), (call,))

    def answer(self) -> str:
        """Return the final text: what was done, what was found, what is missing."""
        phrases = self.composer.phrases
        parts = [self.composer.closing] if self.composer.closing else []
        parts += [
            phrases.missing.format(tool=tool.name, fields=self.composer.tools(fields))
            for tool, fields in self._unready()
        ]
        return " ".join(parts) or self.composer.plain_reply

    @cached_property
    def _scores(self) -> dict[str, float]:
        scores = relevance(self.tools, self.conversation.topic, self.conversation.hint)
        for tool in self.tools:
            fields = (Field(name=name) for name in tool.parameters.get("properties", {}))
            if any(field.kind == "expression" and value_for(field, self.conversation) for field in fields):
                scores[tool.name] += _FITTING
        return scores

    @cached_property
    def _calls_made(self) -> dict[str, list[Call]]:
        made: dict[str, list[Call]] = {}
        for step in self.conversation.steps:
            for call in step.calls:
                made.setdefault(call.tool, []).append(call)
        return made

    @cached_property
    def _latest(self) -> dict[str, Observation]:
        return {observation.tool: observation for observation in self.conversation.observations}

    @cached_property
    def _effects(self) -> list[Tool]:
        return [tool for tool in self.tools if not tool.reads]

    @cached_property
    def _select_wanted(self) -> set[str]:
        return set(requested_verbs(self.conversation.task))

    # Gathering

    def _gathering(self) -> list[PlannedCall]:
        if self._reading_rounds() >= ROUNDS:
            return []
        calls: list[PlannedCall] = []
        for tool in self._candidates():
            call = self._reading_call(tool)
            if call and len(calls) < PARALLEL:
                calls.append(call)
        return calls

    def _reading_rounds(self) -> int:
        reading = {tool.name for tool in self.tools if tool.reads}
        return sum(any(call.tool in reading for call in step.calls) for step in self.conversation.steps)

    def _candidates(self) -> list[Tool]:
        """Reading tools worth calling: untried ones first, then by relevance.

        Once there is an answer, only those that have much to do with the question may add to it.
        """
        readers = [tool for tool in self.tools if tool.reads]
        best = max((self._scores[tool.name] for tool in readers), default=0.0)
        least = best * (_RELEVANT_TO_MORE if self.composer.evidence.answers else _RELEVANT)
        relevant = [tool for tool in readers if 0 < self._scores[tool.name] >= least]
        return sorted(
            relevant, key=lambda tool: (len(self._calls_made.get(tool.name, ())), -self._scores[tool.name])
        )

    def _reading_call(self, tool: Tool) -> PlannedCall | None:
        made = self._calls_made.get(tool.name, [])
        latest = self._latest.get(tool.name)
        if len(made) >= _ATTEMPTS or (made and (latest is None or latest.outcome == "found")):
            return None
        again = bool(latest and latest.outcome == "unavailable")
        filled = arguments_for(tool, self.composer, narrow=bool(made) and not again)
        if filled.missing:
            return None
        is_repeated = any(Call(tool.name, filled.values, "").key == call.key for call in made)
        return None if is_repeated and not again else PlannedCall(tool.name, filled.values)

    # Acting

    def _acting(self) -> PlannedCall | None:
        for tool in self._asked_effects():
            if self._is_open(tool):
                filled = arguments_for(tool, self.composer)
                if not filled.missing:
                    return PlannedCall(tool.name, filled.values)
        return None

    def _is_open(self, tool: Tool) -> bool:
        made = self._calls_made.get(tool.name, [])
        latest = self._latest.get(tool.name)
        return not made or (len(made) < _ATTEMPTS and latest is not None and latest.outcome == "unavailable")

    def _asked_effects(self) -> list[Tool]:
        """Effects to have, most relevant first; an escalation not asked for only if nothing else helps."""
        ranked = sorted(self._effects, key=lambda tool: -self._scores[tool.name])
        asked = [tool for tool in ranked if self._is_asked_for(tool) or self._delivers_answer(tool)]
        if asked or self.composer.done or self.composer.evidence.answers or not self._has_looked():
            return asked
        return [tool for tool in ranked if _escalates(tool)][:1] if self._is_problem() else []

    def _is_asked_for(self, tool: Tool) -> bool:
        """Return the task asks for what the tool does, and speaks of what it does it to.

        Tools that send something are asked for by naming what is sent: that a customer is spoken of says
        little.
        """
        if not tool.verbs & self._select_wanted:
            return False
        sends = tool.verb in DELIVERY_VERBS
        objects = {name for name in tool.objects if not (sends and is_general(name))}
        return bool(objects & set(concepts(self.conversation.task))) or not tool.objects

    def _delivers_answer(self, tool: Tool) -> bool:
        """The task asks for a solution or a reply, the tool sends one, and there is something to say."""
        objects = set(tool.name_words[1:])
        sends = tool.verb in DELIVERY_VERBS and (not objects or bool(objects & DELIVERY_OBJECTS))
        return sends and bool(self._select_wanted & DELIVERY_REQUESTS) and self.composer.evidence.answers

    def _is_problem(self) -> bool:
        return bool(set(concepts(self.conversation.task)) & FAULT_WORDS or "resolve" in self._select_wanted)

    def _has_looked(self) -> bool:
        return bool(self.conversation.steps) or not any(tool.reads for tool in self.tools)

    def _unready(self) -> list[tuple[Tool, tuple[str, ...]]]:
        asked = [tool for tool in self._effects if self._is_asked_for(tool) and self._is_open(tool)]
        filled = [(tool, arguments_for(tool, self.composer).missing) for tool in asked]
        if not filled and not self.conversation.observations:
            telling = [tool for tool in self._candidates() if self._scores[tool.name] >= _TELLING]
            filled = [(tool, arguments_for(tool, self.composer).missing) for tool in telling[:1]]
        return [(tool, missing) for tool, missing in filled if missing][:PARALLEL]

    # Thoughts

    def _write_thought(self, calls: Sequence[PlannedCall]) -> str:
        phrases, composer = self.composer.phrases, self.composer
        again = [call.tool for call in calls if call.tool in self._calls_made]
        fresh = [call.tool for call in calls if call.tool not in self._calls_made]
        known = (
            composer.known_so_far()
            if self.conversation.observations
            else phrases.need_to_know.format(topic=composer.subject)
        )
        parts = [known]
        parts += [phrases.will_use.format(tools=composer.tools(fresh))] if fresh else []
        parts += [phrases.try_again.format(tools=composer.tools(again))] if again else []
        return " ".join(parts)

    def _purpose(self, call: PlannedCall) -> str:
        phrases, composer = self.composer.phrases, self.composer
        asked = any(tool.name == call.tool and self._is_asked_for(tool) for tool in self.tools)
        if asked or not self.conversation.observations:
            known = phrases.asked_for.format(task=composer.task_line)
        elif composer.evidence.answers:
            known = phrases.ready.format(topic=_among(composer.evidence.covered) or composer.subject)
        else:
            known = phrases.escalating.format(topic=composer.subject)
        return f"{known} {phrases.will_use.format(tools=call.tool)}"


def _escalates(tool: Tool) -> bool:
    return tool.verb in ESCALATION_VERBS and bool(set(tool.name_words) & ESCALATION_OBJECTS)


def _among(words: Sequence[str]) -> str:
    return f"“{' '.join(words[:5])}”" if words else ""
