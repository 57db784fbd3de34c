"""When a person must take over: rules with phrases, and the rules that every agent has.

The rules of every agent are in ``escalation.yaml``; they recognise the form of a sentence. A false alarm
costs a colleague a minute; what no rule foresees is left to the agents, whose prompts name the cases too.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict
from ruamel.yaml import YAML

from core.teams import Team
from core.texts import LANGUAGES, is_storable, strip_accents

# Of a message, so much is examined.
_CHARACTERS: Final = 4_000
_SENTENCE_END: Final = re.compile(r"(?<=[.!?;])\s+|\n+")


def normalize_words(text: str) -> str:
    """Return the words of a text without case, accents and punctuation, joined by single spaces."""
    return " ".join(re.findall(r"[^\W_]+", strip_accents(text).casefold()))


def _validate_text(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must not contain NUL or unpaired surrogates")
    if not text.strip():
        raise ValueError("is empty")
    return text.strip()


def _validate_words(text: str) -> str:
    if not normalize_words(text):
        raise ValueError("contains no word")
    return text


Text = Annotated[str, AfterValidator(_validate_text)]
Phrase = Annotated[Text, AfterValidator(_validate_words)]


class EscalationRule(BaseModel):
    """A case in which a person must take over.

    Attributes:
        when: A sentence that describes the case to the model.
        phrases: Phrases, in any language, that trigger the rule without a model.
        team: The team that takes over; None: the agent's own team.
        agent_answers: The agent answers too, where there is a language model.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    when: Text
    phrases: tuple[Phrase, ...] = ()
    team: Team | None = None
    agent_answers: bool = False

    def applies_to(self, message: str) -> bool:
        """Return whether the message contains a phrase as whole words, ignoring case and accents."""
        words = f" {normalize_words(message)} "
        return any(f" {normalize_words(phrase)} " in words for phrase in self.phrases)


class DefaultRule(EscalationRule):
    """A rule that every agent has.

    Attributes:
        forms: For each language, what matches a sentence to which the rule applies, and what matches a
            sentence that only sounds so.
    """

    forms: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]

    def applies_to(self, message: str) -> bool:
        """Return whether a sentence of the message says so, or the message contains a phrase."""
        sentences = [normalize_words(part) for part in _SENTENCE_END.split(message[:_CHARACTERS])]
        return super().applies_to(message) or any(
            says.search(sentence) and not unless.search(sentence)
            for sentence in sentences
            for says, unless in self.forms
        )


def _load_rules() -> tuple[DefaultRule, ...]:
    text = Path(__file__).with_name("escalation.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return tuple(_build_rule(rule, document["words"]) for rule in document["rules"])


def _build_rule(rule: Mapping[str, Any], words: Mapping[str, Mapping[str, str]]) -> DefaultRule:
    forms = tuple(
        (_compile(rule["says"][each], words[each]), _compile(rule["unless"][each], words[each]))
        for each in LANGUAGES
    )
    fields = {name: value for name, value in rule.items() if name not in {"says", "unless"}}
    return DefaultRule(**fields, forms=forms)


def _compile(alternatives: Sequence[str], words: Mapping[str, str]) -> re.Pattern[str]:
    """Compile alternatives that match whole words, with the named words put in."""

    def insert(text: str) -> str:
        return re.sub(r"<(\w+)>", lambda name: f"(?:{insert(words[name[1]])})", text)

    return re.compile(rf"\b(?:{'|'.join(f'(?:{insert(each)})' for each in alternatives)})\b")


# The first that applies counts.
DEFAULT_RULES: Final = _load_rules()
BREACH, LEGAL_THREAT, ASKS_FOR_A_PERSON, COMPLAINT = DEFAULT_RULES
