"""Whether what was read is supported by what was said or worked out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# What a model writes where it knows nothing. English and Portuguese.
_NOTHING = re.compile(
    r"""\W*$ | \W*(null|none|nil|nothing|nada|n/?a|tb[acd]|no\s+information|sem\s+informa\w+
    |unknown|unclear|unspecified|undetermined|desconhecid[ao]s?|indefinid[ao]s?
    |(not|n[aã]o)\s+(yet\s+)?(known|given|stated|specified|mentioned|provided|disclosed|available|clear
      |conhecid[ao]|informad[ao]|especificad[ao]|mencionad[ao]|dispon[ií]vel))\b""",
    re.IGNORECASE | re.VERBOSE,
)
_FEWEST_LETTERS = 3
_STEM_LETTERS = 5
_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a reading may rest on.

    Attributes:
        said: What the customer said on the thread.
        brought: What the sub-agents of this run brought, by stage.
    """

    said: str
    brought: Mapping[str, str]

    def supports(self, text: str) -> bool:
        """Whether the customer's words or anybody's result support it."""
        return is_known(text) and _shared(text, "\n".join((self.said, *self.brought.values())))

    def has_worked_out(self, stage: str, text: str) -> bool:
        """Whether it is what this stage's own work brought."""
        return is_known(text) and _shared(text, self.brought.get(stage, ""))


def is_known(text: str) -> bool:
    """Whether a text says anything, and not only that nothing is known."""
    return not _NOTHING.match(text)


def _shared(text: str, material: str) -> bool:
    """Whether at least half of the words are in the material; short words and endings do not count."""
    words, known = _stems(text), _stems(material)
    return bool(words) and len(words & known) >= _SHARE * len(words)


def _stems(text: str) -> set[str]:
    found = re.findall(r"\w+", text.casefold())
    return {word[:_STEM_LETTERS] for word in found if len(word) >= _FEWEST_LETTERS or word.isdecimal()}
