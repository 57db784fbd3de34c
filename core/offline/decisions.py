"""What the offline model does next: call tools, hand the conversation to a person, or answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

from core.offline.answers import Answer, find_answer
from core.offline.conversation import Call, Conversation
from core.offline.schema import Schema, fill_arguments
from core.offline.words import PATTERNS, PHRASES, build_query, find_concepts, is_effect, is_handoff, tokenise
from core.teams import format_handed_over

_PARALLEL: Final = 2
# Steps in which tools are called to find something; by then, all of them were.
_MOST_ROUNDS: Final = 4
_LEAST_SCORE: Final = 2.0
_SMALL_TALK_WORDS: Final = 7
_GREETING_WORDS: Final = 4
# Patterns of the vocabulary, by the team that takes over.
_TEAMS: Final = ("billing", "legal", "sales")
# A colleague asks for this, about a customer.
_RESOLVE: Final = {"resolve", "solve", "resolver", "answer"}

# Name of a tool and its arguments.
ToolArguments: TypeAlias = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Decision:
    """The next reply.

    Attributes:
        text: The answer, or the thought beside the calls.
        calls: Tool calls, as name and arguments; none: the text is the answer.
        unable: The model could not do what was asked; a caller hands over to a person.
    """

    text: str
    calls: Sequence[ToolArguments] = ()
    unable: bool = False


@dataclass(frozen=True, eq=False)
class Tool:
    """A bound tool, by name, description and parameters (JSON schema)."""

    name: str
    description: str
    parameters: Schema

    def score(self, conversation: Conversation) -> float:
        """Weigh how much the tool has to do with the message: its name counts more than its description."""
        wanted = conversation.concepts - {"customer"}
        named = set(find_concepts(self.name))
        described = set(find_concepts(self.description.partition("\n\n")[0][:400])) - named
        explains = conversation.needs_explanation and "search" in self.name and "article" in named | described
        return 3.0 * len(wanted & named) + 2.0 * len(wanted & described) + 3.0 * explains


@dataclass(frozen=True)
class Decider:
    """Decides the next reply of a conversation.

    Attributes:
        conversation: What was said and done.
        tools: The bound tools.
    """

    conversation: Conversation
    tools: Sequence[Tool] = ()

    @cached_property
    def answer(self) -> Answer | None:
        """Return what the results so far say."""
        return find_answer(self.conversation)

    @cached_property
    def _phrases(self) -> Mapping[str, str]:
        return PHRASES[self.conversation.language]

    @cached_property
    def _handed_over(self) -> Call | None:
        made = (call for call in self.conversation.calls if is_handoff(call.tool))
        return next((call for call in made if not call.failure), None)

    @cached_property
    def _uncalled_tools(self) -> list[Tool]:
        made = {call.tool for call in self.conversation.calls}
        return [tool for tool in self.tools if tool.name not in made]

    @cached_property
    def _needs_person(self) -> bool:
        """Return whether the message asks for what only a person can do."""
        return self.conversation.matches("needs_person") and not self.conversation.matches("how_to")

    def decide(self) -> Decision:
        """Gather, then act where the message asks for it, then answer; hand over where nothing answers."""
        small_talk = self._find_small_talk()
        if small_talk or not self.conversation.task.strip():
            return Decision(small_talk or self._phrases["greeting"])
        if self._handed_over is None and (calls := self._gather() or self._act()):
            names = ", ".join(name for name, _ in calls)
            return Decision(self._phrases["thought"].format(tools=names), calls)
        return Decision(self.close(), unable=self.answer is None and self._handed_over is None)

    def call_tool(self, name: str) -> Decision:
        """Call a tool that must be called: the named one, else the most relevant one."""
        named = next((tool for tool in self.tools if tool.name == name), None)
        tool = named or max(self.tools, key=lambda each: each.score(self.conversation))
        arguments, _ = fill_arguments(tool.parameters, self._values | self._judge())
        return Decision("", [(tool.name, arguments)])

    def close(self) -> str:
        """Return the final text: what was found, and that a person follows up where that was recorded."""
        parts = [self.answer.text] if self.answer else []
        if self._handed_over is not None:
            parts += [self._phrases["apology"]] if not parts and self._needs_person else []
            team = str(self._handed_over.arguments.get("team", "support"))
            parts.append(format_handed_over(team, self.conversation.language))
        return "\n\n".join(parts) or self._unable

    def _find_small_talk(self) -> str:
        words = tokenise(self.conversation.task)
        if not 0 < len(words) <= _SMALL_TALK_WORDS or self.conversation.codes:
            return ""
        if self.conversation.matches("identity"):
            return self._phrases["identity"]
        if said := [self._phrases[each] for each in ("thanks", "goodbye") if self.conversation.matches(each)]:
            return " ".join(said)
        greets = len(words) <= _GREETING_WORDS and PATTERNS["greeting"].match(" ".join(words))
        return self._phrases["greeting"] if greets else ""

    @property
    def _unable(self) -> str:
        failed = any(call.failure == "unavailable" for call in self.conversation.calls)
        return self._phrases["unavailable" if failed else "unable"]

    def _gather(self) -> list[ToolArguments]:
        """Choose reading tools that were not called: relevant ones, and all others while nothing answers."""
        if (self.answer and self.conversation.calls) or self.conversation.iteration > _MOST_ROUNDS:
            return []
        scores = {
            tool: tool.score(self.conversation) for tool in self._uncalled_tools if not is_effect(tool.name)
        }
        ranked = sorted(scores, key=lambda tool: -scores[tool])
        least = max(_LEAST_SCORE, 0.5 * max(scores.values(), default=0.0))
        relevant = [tool for tool in ranked if scores[tool] >= least][:_PARALLEL]
        return self._build_calls(relevant or ranked)

    def _act(self) -> list[ToolArguments]:
        """Do what the message asks for by verb and object, deliver a solution, or call a person."""
        words = set(tokenise(self.conversation.task))
        resolves = "customer" in self.conversation.concepts and not words.isdisjoint(_RESOLVE)
        wanted = []
        for tool in self._uncalled_tools:
            verb, _, rest = tool.name.partition("_")
            if not is_effect(tool.name) or is_handoff(tool.name):
                continue
            asked = verb in words and set(find_concepts(rest)) & self.conversation.concepts
            delivers = verb == "send" and resolves and self.answer is not None
            if asked or delivers:
                wanted.append(tool)
        if effects := self._build_calls(wanted):
            return effects[:1]
        if not (self._needs_person or self.answer is None):
            return []
        return self._build_calls([tool for tool in self._uncalled_tools if is_handoff(tool.name)])[:1]

    def _build_calls(self, tools: Sequence[Tool]) -> list[ToolArguments]:
        """Return calls of the tools whose required arguments are known."""
        filled = [(tool.name, *fill_arguments(tool.parameters, self._values)) for tool in tools]
        return [(name, arguments) for name, arguments, missing in filled if not missing]

    @property
    def _values(self) -> dict[str, Any]:
        """Return values for parameters by what their names usually mean."""
        task = " ".join(self.conversation.task.split())
        found = self.answer.text if self.answer else ""
        team = next((team for team in _TEAMS if self.conversation.matches(team)), "support")
        return {
            **dict.fromkeys(("solution", "message", "answer", "text"), found or task),
            **dict.fromkeys(("title", "subject"), task[:120]),
            "query": build_query(self.conversation.topic),
            **dict.fromkeys(("description", "summary"), f"{task}\n{found}".strip()[:2_000]),
            "reason": task[:300],
            "note": task[:1_000],
            "team": team,
        }

    def _judge(self) -> dict[str, Any]:
        """Return what can be said of the work without a language model, by the usual names of fields."""
        latest = self.conversation.rounds[-1] if self.conversation.rounds else []
        has_acted = any(is_effect(call.tool) for call in latest if not call.failure)
        is_complete = has_acted or bool(self.conversation.answer)
        found = [call.failure or ("found" if call.result else "nothing found") for call in latest]
        done = [f"{call.tool}: {outcome}" for call, outcome in zip(latest, found, strict=True)]
        return {
            "success": not any(call.failure for call in latest),
            "task_complete": is_complete,
            "reasoning": "; ".join(done) or "no step was taken",
            **({"final_answer": self.conversation.answer or self.close()} if is_complete else {}),
        }
