"""What the offline model does next: call tools, hand the conversation to a person, or answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias

from core.offline.answers import Answer, find_answer, is_how_to, needs_explanation
from core.offline.conversation import Call, Conversation
from core.offline.schema import Schema, fill_arguments
from core.offline.words import NEEDS_PERSON, PHRASES, build_query, find_concepts, tokenise
from core.teams import format_handed_over
from core.texts import normalise_text

_PARALLEL: Final = 2
# Steps in which tools are called to find something; by then, all of them were.
_MOST_ROUNDS: Final = 4
_LEAST_SCORE: Final = 2.0
# Names of tools that change something begin with one of these; all others only read.
_EFFECT: Final = re.compile(
    r"(?:add|assign|book|cancel|change|create|delete|escalate|file|forward|hand|notify|open|pay|post|refund"
    r"|register|remember|remove|report|reply|schedule|send|set|transfer|update|write)(?:_|$)"
)
_HANDOFF: Final = re.compile(r"hand_?(?:over|off)|escalate_to_(?:human|person)|transfer_to")
_SEARCH: Final = re.compile(r"search|find|lookup")
_GREETING: Final = re.compile(
    r"(?:hi|hello|hey|good (?:morning|afternoon|evening)|oi|ola|bom dia|boa (?:tarde|noite)|hola"
    r"|buen[oa]s\b.*)"
)
_THANKS: Final = re.compile(r"\b(?:thanks|thank you|thx|obrigad[oa]|valeu|gracias)\b")
_GOODBYE: Final = re.compile(r"\b(?:bye|goodbye|see you|tchau|ate (?:logo|mais|amanha)|adios|hasta luego)\b")
_IDENTITY: Final = re.compile(
    r"\b(?:robot|bot|who are you|who am i|human\?|robo|quem e voce|quien eres|maquina|what can you)\b"
)
_SMALL_TALK_WORDS: Final = 7
_TEAMS: Final[Mapping[str, re.Pattern[str]]] = {
    "billing": re.compile(r"invoice|refund|charge|fatura|cobran|reembols|factura", re.IGNORECASE),
    "legal": re.compile(r"gdpr|lgpd|privacy|personal data|leak|breach|dados|datos|vaz", re.IGNORECASE),
    "sales": re.compile(
        r"price|offer|proposal|discount|seats|proposta|desconto|oferta|crm for", re.IGNORECASE
    ),
}


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

    @cached_property
    def is_effect(self) -> bool:
        """Return whether the tool changes something, by the verb of its name."""
        return bool(_EFFECT.match(self.name))

    def score(self, conversation: Conversation) -> float:
        """Weigh how much the tool has to do with the message: its name counts more than its description."""
        wanted = set(conversation.concepts) - {"customer"}
        named = set(find_concepts(self.name.replace("_", " ")))
        described = set(find_concepts(self.description.partition("\n\n")[0][:400])) - named
        score = 3.0 * len(wanted & named) + 2.0 * len(wanted & described)
        explains = needs_explanation(conversation)
        return score + 3.0 * (
            explains and bool(_SEARCH.search(self.name)) and "article" in {*named, *described}
        )


@dataclass(frozen=True)
class Decider:
    """Decides the next reply of a conversation.

    Attributes:
        conversation: What was said and done.
        tools: The bound tools.
    """

    conversation: Conversation
    tools: Sequence[Tool] = field(default_factory=tuple)

    @property
    def _phrases(self) -> Mapping[str, str]:
        return PHRASES[self.conversation.language]

    @cached_property
    def answer(self) -> Answer | None:
        """Return what the results so far say."""
        return find_answer(self.conversation)

    @cached_property
    def _handed_over(self) -> Call | None:
        return next((c for c in self.conversation.calls if _HANDOFF.search(c.tool) and not c.failure), None)

    @cached_property
    def needs_person(self) -> bool:
        """Return whether the message asks for what only a person can do."""
        task = self.conversation.task
        return bool(NEEDS_PERSON.search(task)) and not is_how_to(task)

    def decide(self) -> Decision:
        """Gather, then act where the message asks for it, then answer; hand over where nothing answers."""
        small_talk = self._small_talk()
        if small_talk or not self.conversation.task.strip():
            return Decision(small_talk or self._phrases["greeting"])
        if self._handed_over is None and (calls := self._next_calls()):
            names = ", ".join(name for name, _ in calls)
            return Decision(self._phrases["thought"].format(tools=names), calls)
        unable = self.answer is None and self._handed_over is None
        return Decision(self.closing(), unable=unable)

    def _next_calls(self) -> list[ToolArguments]:
        if calls := self._gather():
            return calls
        if effect := self._requested_effect():
            return [effect]
        handoff = self._handoff_call() if self.needs_person or self.answer is None else None
        return [handoff] if handoff else []

    def call_tool(self, name: str | None) -> Decision:
        """Call a tool that must be called: the named one, else the most relevant one."""
        named = next((tool for tool in self.tools if tool.name == name), None)
        tool = named or max(self.tools, key=lambda each: each.score(self.conversation))
        arguments, _ = fill_arguments(tool.parameters, self._values())
        return Decision(self._phrases["thought"].format(tools=tool.name), [(tool.name, arguments)])

    def reply(self) -> Decision:
        """Answer without tools: small talk, a quoted passage, or that it is unable."""
        if small_talk := self._small_talk():
            return Decision(small_talk)
        return Decision(self.answer.text) if self.answer else Decision(self._unable(), unable=True)

    def closing(self) -> str:
        """Return the final text: what was found, and that a person follows up where that was recorded."""
        parts = [self.answer.text] if self.answer else []
        if self._handed_over is not None:
            team = str(self._handed_over.arguments.get("team", "support"))
            parts.append(format_handed_over(team, self.conversation.language))
            if not self.answer and self.needs_person:
                parts.insert(0, self._phrases["apology"])
        return "\n\n".join(parts) or self._unable()

    def _small_talk(self) -> str:
        text = " ".join(tokenise(self.conversation.task))
        if not text or len(text.split()) > _SMALL_TALK_WORDS or self.conversation.codes:
            return ""
        if _IDENTITY.search(normalise_text(self.conversation.task)):
            return self._phrases["identity"]
        thanks, goodbye = _THANKS.search(text), _GOODBYE.search(text)
        if thanks or goodbye:
            said = {"thanks": thanks, "goodbye": goodbye}
            return " ".join(self._phrases[name] for name, found in said.items() if found)
        return self._phrases["greeting"] if _GREETING.match(text) and len(text.split()) <= 4 else ""  # noqa: PLR2004

    def _unable(self) -> str:
        failed = any(call.failure == "unavailable" for call in self.conversation.calls)
        return self._phrases["unavailable"] if failed else self._phrases["unable"]

    def _gather(self) -> list[ToolArguments]:
        """Choose reading tools that were not called: relevant ones, and all others while nothing answers."""
        made = {call.tool for call in self.conversation.calls}
        if (self.answer and made) or self.conversation.iteration > _MOST_ROUNDS:
            return []
        scores = {
            tool: tool.score(self.conversation)
            for tool in self.tools
            if not tool.is_effect and tool.name not in made
        }
        ranked = sorted(scores, key=lambda tool: -scores[tool])
        least = max(_LEAST_SCORE, 0.5 * max(scores.values(), default=0.0))
        relevant = [tool for tool in ranked if scores[tool] >= least][:_PARALLEL]
        chosen = [
            (tool.name, *fill_arguments(tool.parameters, self._values())) for tool in relevant or ranked
        ]
        return [(name, arguments) for name, arguments, missing in chosen if not missing]

    def _requested_effect(self) -> ToolArguments | None:
        """Return an effect that the message asks for by verb and object, or the delivery of a solution."""
        made = {call.tool for call in self.conversation.calls}
        words = set(tokenise(self.conversation.task))
        third_person = "customer" in self.conversation.concepts and bool(
            words & {"resolve", "solve", "resolver", "answer"}
        )
        for tool in self.tools:
            if (
                not tool.is_effect
                or tool.name in made
                or _HANDOFF.search(tool.name)
                or tool.name == "remember"
            ):
                continue
            verb, *rest = tool.name.split("_")
            delivers = verb == "send" and third_person and self.answer is not None
            asked = verb in words and bool(
                set(find_concepts(" ".join(rest))) & set(self.conversation.concepts)
            )
            reports = verb in {"create", "open", "report"} and "engineering" in words and "report" in words
            if delivers or asked or reports:
                arguments, missing = fill_arguments(tool.parameters, self._values())
                if not missing:
                    return tool.name, arguments
        return None

    def _handoff_call(self) -> ToolArguments | None:
        made = {call.tool for call in self.conversation.calls}
        tool = next(
            (tool for tool in self.tools if _HANDOFF.search(tool.name) and tool.name not in made), None
        )
        if tool is None:
            return None
        arguments, missing = fill_arguments(tool.parameters, self._values())
        return None if missing else (tool.name, arguments)

    def _values(self) -> dict[str, Any]:
        """Return values for parameters by what their names usually mean."""
        task = " ".join(self.conversation.task.split())
        found = self.answer.text if self.answer else ""
        team = next((name for name, pattern in _TEAMS.items() if pattern.search(task)), "support")
        query = build_query(self.conversation.topic)
        prose = {
            "solution": found or task,
            "message": found or task,
            "answer": found or task,
            "text": found or task,
        }
        return {
            **prose,
            "query": query,
            "keywords": query,
            "title": task[:120],
            "subject": task[:120],
            "reason": task[:300],
            "description": f"{task}\n{found}".strip()[:2_000],
            "summary": f"{task}\n{found}".strip()[:2_000],
            "note": task[:1_000],
            "team": team,
            "severity": "high" if "error" in self.conversation.concepts else "medium",
            "codes": self.conversation.codes,
        }
