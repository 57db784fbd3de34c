"""What a specialised agent is made of, and what its fields may hold."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypedDict, get_args

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo

from core.texts import is_storable, without_accents

Pattern = Literal["react", "critique_refine", "planning_monitor", "answer"]
Category = Literal["sales", "retention", "support", "onboarding", "marketing", "general"]
RetrievalStrategy = Literal["support_technical", "sales", "retention", "onboarding", "general"]
Language = Literal["en", "pt"]
Team = Literal["support", "billing", "sales", "success", "marketing"]

LANGUAGES: tuple[Language, ...] = get_args(Language)
FEWEST_EXAMPLES = 8
# These write from what they are given; their graphs bind no tools.
WITHOUT_TOOLS: frozenset[Pattern] = frozenset({"answer", "critique_refine"})


class Checks(TypedDict):
    """What a file is checked against beyond itself (Pydantic's validation context)."""

    name: str
    tools: Collection[str]


def words(text: str) -> str:
    """The words of a text without case, accents and punctuation, a space between each two."""
    return " ".join(re.findall(r"[^\W_]+", without_accents(text).casefold()))


def _said(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must hold neither NUL nor halves of surrogate pairs")
    if not text.strip():
        raise ValueError("is empty")
    return text.strip()


def _has_words(text: str) -> str:
    if not words(text):
        raise ValueError("has no word in it")
    return text


def _named_as_its_file(name: str, info: ValidationInfo) -> str:
    checks: Checks | None = info.context
    if checks is not None and name != checks["name"]:
        raise ValueError(f"must be the file's name, {checks['name']!r}")
    return name


def _is_there(tool: str, info: ValidationInfo) -> str:
    checks: Checks | None = info.context
    if checks is not None and tool not in checks["tools"]:
        raise ValueError(f"there is no tool {tool!r}; the tools are: {', '.join(sorted(checks['tools']))}")
    return tool


def _each_once(tools: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [tool for tool, times in Counter(tools).items() if times > 1]:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return tools


def _fit_the_pattern(tools: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    # Pydantic gives the fields before this one, and leaves out those that are wrong themselves.
    pattern: Pattern | None = info.data.get("pattern")
    if tools and pattern in WITHOUT_TOOLS:
        raise ValueError(f"the pattern {pattern!r} calls no tools; list none, or choose another pattern")
    if not tools and pattern is not None and pattern not in WITHOUT_TOOLS:
        raise ValueError(f"the pattern {pattern!r} works with tools; list those it needs")
    return tools


def _every_language(
    examples: Mapping[Language, tuple[str, ...]],
) -> Mapping[Language, tuple[str, ...]]:
    if missing := [language for language in LANGUAGES if language not in examples]:
        raise ValueError(f"has no examples in {missing[0]!r}")
    return examples


Text = Annotated[str, AfterValidator(_said)]
Name = Annotated[Text, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_named_as_its_file)]
Phrase = Annotated[Text, AfterValidator(_has_words)]
Tools = Annotated[
    tuple[Annotated[Text, AfterValidator(_is_there)], ...],
    AfterValidator(_each_once),
    AfterValidator(_fit_the_pattern),
]
Utterances = Annotated[tuple[Phrase, ...], Field(min_length=FEWEST_EXAMPLES)]
Examples = Annotated[Mapping[Language, Utterances], AfterValidator(_every_language)]
Temperature = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationRule:
    """When a person has to take over.

    Attributes:
        when: A sentence the model reads.
        phrases: What triggers the rule without a model, English and Portuguese.
        team: Who takes over.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    when: Text
    phrases: tuple[Phrase, ...] = ()
    team: Team

    def applies_to(self, message: str) -> bool:
        """Whether one of the phrases is in the message: whole words; case and accents do not count."""
        heard = f" {words(message)} "
        return any(f" {words(phrase)} " in heard for phrase in self.phrases)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """A specialised agent.

    Attributes:
        name: Its file's name, without the ending.
        category: The part of the customer's life it belongs to.
        description: One line on what it serves, for a model that routes and for people.
        examples: Messages it serves, in each language: what the router learns from.
        pattern: The graph that runs it.
        tools: Names of the tools it may call.
        retrieval: How memory is searched for it.
        temperature: Of its model calls, 0 to 1.
        escalation: When a person has to take over; the first rule that applies counts.
        prompt: Its system prompt.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Name
    category: Category
    description: Text
    examples: Examples
    pattern: Pattern
    tools: Tools
    retrieval: RetrievalStrategy
    temperature: Temperature
    escalation: tuple[EscalationRule, ...]
    prompt: Text

    @property
    def utterances(self) -> tuple[str, ...]:
        """The examples of all languages."""
        return tuple(text for language in LANGUAGES for text in self.examples[language])

    def escalated_by(self, message: str) -> EscalationRule | None:
        """The first rule whose phrases are in a customer's message, if there is one."""
        return next((rule for rule in self.escalation if rule.applies_to(message)), None)
