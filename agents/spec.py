"""The definition of a specialised agent and the validation of its fields."""

from collections import Counter
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Annotated, ClassVar, Literal, TypedDict, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from agents.escalation import ASKS_FOR_A_PERSON, DEFAULT_RULES, EscalationRule, Phrase, Text
from core.teams import Team

Pattern = Literal["react", "critique_refine", "planning_monitor", "answer"]
Category = Literal["sales", "retention", "support", "onboarding", "marketing", "general"]
RetrievalStrategy = Literal["support_technical", "sales", "retention", "onboarding", "general"]
Language = Literal["en", "pt", "es"]

LANGUAGES: tuple[Language, ...] = get_args(Language)
# An agent may do without examples in Spanish; the router compares meanings across languages.
REQUIRED_LANGUAGES: tuple[Language, ...] = ("en", "pt")
MIN_EXAMPLES = 8
# These patterns write from the given material; their graphs bind no tools.
PATTERNS_WITHOUT_TOOLS: frozenset[Pattern] = frozenset({"answer", "critique_refine"})


class FileChecks(TypedDict):
    """What a file is checked against besides its own content (the Pydantic validation context).

    Attributes:
        name: The name of the file without its suffix.
        tools: The names of the tools that exist.
    """

    name: str
    tools: Collection[str]


def _validate_name(name: str, info: ValidationInfo) -> str:
    checks: FileChecks | None = info.context
    if checks is not None and name != checks["name"]:
        raise ValueError(f"must be the name of the file, {checks['name']!r}")
    return name


def _validate_tool(tool: str, info: ValidationInfo) -> str:
    checks: FileChecks | None = info.context
    if checks is not None and tool not in checks["tools"]:
        raise ValueError(f"there is no tool {tool!r}; the tools are: {', '.join(sorted(checks['tools']))}")
    return tool


def _validate_tools(tools: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if repeated := [tool for tool, count in Counter(tools).items() if count > 1]:
        raise ValueError(f"{repeated[0]!r} is listed twice")
    # Pydantic passes the fields declared before this one, without those that are invalid.
    pattern: Pattern | None = info.data.get("pattern")
    if tools and pattern in PATTERNS_WITHOUT_TOOLS:
        raise ValueError(f"the pattern {pattern!r} calls no tools; list none, or choose another pattern")
    if not tools and pattern is not None and pattern not in PATTERNS_WITHOUT_TOOLS:
        raise ValueError(f"the pattern {pattern!r} works with tools; list those it needs")
    return tools


def _validate_examples(
    examples: Mapping[Language, tuple[str, ...]],
) -> Mapping[Language, tuple[str, ...]]:
    if missing := [language for language in REQUIRED_LANGUAGES if language not in examples]:
        raise ValueError(f"has no examples in {missing[0]!r}")
    return examples


Name = Annotated[Text, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_validate_name)]
Tools = Annotated[
    tuple[Annotated[Text, AfterValidator(_validate_tool)], ...], AfterValidator(_validate_tools)
]
Utterances = Annotated[tuple[Phrase, ...], Field(min_length=MIN_EXAMPLES)]
Examples = Annotated[Mapping[Language, Utterances], AfterValidator(_validate_examples)]
# YAML scalars of ruamel.yaml are subclasses of float; the agent keeps a plain one.
Temperature = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False), AfterValidator(float)]


class AgentSpec(BaseModel):
    """A specialised agent.

    Attributes:
        name: The name of its file without the suffix.
        category: The part of the customer's life cycle it belongs to.
        description: One line on what it serves, for a routing model and for people.
        pattern: The graph that runs it.
        tools: Names of the tools it may call.
        retrieval: The strategy by which memory is searched for it.
        temperature: Temperature of its model calls, 0 to 1.
        team: The people who take over from it.
        escalation: The cases in which a person must take over, besides those of every agent.
        handoff_phrases: Phrases by which its customers ask for a person, besides the usual ones.
        examples: Messages it serves, in each language; the router learns from them.
        prompt: Its system prompt.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: Name
    category: Category
    description: Text
    pattern: Pattern
    tools: Tools
    retrieval: RetrievalStrategy
    temperature: Temperature
    team: Team
    escalation: tuple[EscalationRule, ...] = ()
    handoff_phrases: tuple[Phrase, ...] = ()
    examples: Examples
    prompt: Text

    @property
    def utterances(self) -> tuple[str, ...]:
        """The examples of all languages."""
        return tuple(text for language in LANGUAGES for text in self.examples.get(language, ()))

    @cached_property
    def escalation_rules(self) -> tuple[EscalationRule, ...]:
        """All rules in order, the agent's own first."""
        person = ASKS_FOR_A_PERSON.model_copy(update={"phrases": self.handoff_phrases})
        defaults = [person if rule is ASKS_FOR_A_PERSON else rule for rule in DEFAULT_RULES]
        return (*self.escalation, *defaults)

    def find_escalation(self, message: str) -> EscalationRule | None:
        """Return the first rule with a phrase in the customer's message, or None."""
        return next((rule for rule in self.escalation_rules if rule.applies_to(message)), None)
