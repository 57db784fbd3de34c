"""Whether texts support what a model read from them: results, amounts of money, the customer's own words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# What a model writes when it knows nothing. English and Portuguese.
_NOTHING = re.compile(
    r"""\W*$ | \W*(null|none|nil|nothing|nada|n/?a|tb[acd]|no\s+information|sem\s+informa\w+
    |unknown|unclear|unspecified|undetermined|desconhecid[ao]s?|indefinid[ao]s?
    |(not|n[aã]o)\s+(yet\s+)?(known|given|stated|specified|mentioned|provided|disclosed|available|clear
      |conhecid[ao]|informad[ao]|especificad[ao]|mencionad[ao]|dispon[ií]vel))\b""",
    re.IGNORECASE | re.VERBOSE,
)
_MIN_WORD_LETTERS = 3
_STEM_LETTERS = 5
_MIN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The texts that a reading may rest on.

    Attributes:
        customer_words: What the customer said on the thread.
        results: The results of this run's sub-agents, by stage.
    """

    customer_words: str
    results: Mapping[str, str]

    def supports(self, text: str) -> bool:
        """Return whether the customer's words or any result support the text."""
        return is_known(text) and _overlaps(text, "\n".join((self.customer_words, *self.results.values())))

    def is_result_of(self, stage: str, text: str) -> bool:
        """Return whether the text is the result of this stage's own work."""
        return is_known(text) and _overlaps(text, self.results.get(stage, ""))


def is_known(text: str) -> bool:
    """Return whether a text says anything other than that nothing is known."""
    return not _NOTHING.match(text)


def _overlaps(text: str, source: str) -> bool:
    """Return whether at least half of the words are in the source; short words and endings do not count."""
    words = _stem_words(text)
    return bool(words) and len(words & _stem_words(source)) >= _MIN_SHARE * len(words)


def _stem_words(text: str) -> set[str]:
    words = re.findall(r"\w+", text.casefold())
    return {word[:_STEM_LETTERS] for word in words if len(word) >= _MIN_WORD_LETTERS or word.isdecimal()}


_NUMBER = r"\d{1,3}(?:[.,' \u00a0]\d{3})+(?:[.,]\d{1,2})?(?!\d)|\d+(?:[.,]\d{1,2})?(?!\d)"
_SIGNS: Mapping[str, str] = {"EUR": "€", "USD": r"(?:US)?\$", "BRL": r"R\$", "GBP": "£", "CAD": r"(?:CA?)?\$"}
# A price may be stated per month when the deal is worth years of it.
MONTHS = (1, 12, 24, 36)
_MAX_DECIMALS = 2
_HALF_A_CENT = 0.005


def find_amounts(text: str, currency: str) -> set[float]:
    """Return the numbers next to the currency's code or sign.

    Args:
        text: English or Portuguese: ``1,798.00`` and ``1.798,00`` are the same.
        currency: ISO 4217 code.
    """
    mark = rf"(?:{re.escape(currency)}|{_SIGNS[currency]})" if currency in _SIGNS else re.escape(currency)
    amount = re.compile(
        rf"{mark}\s*(?P<after>{_NUMBER})|(?<![\d.,])(?P<before>{_NUMBER})\s*{mark}", re.IGNORECASE
    )
    return {_parse_number(match["after"] or match["before"]) for match in amount.finditer(text)}


def names_value(text: str, value: float, currency: str) -> bool:
    """Return whether the text names the value, as a whole or per month."""
    named = (amount * months for amount in find_amounts(text, currency) for months in MONTHS)
    return any(abs(each - value) < _HALF_A_CENT for each in named)


def _parse_number(number: str) -> float:
    """Return the number; the last separator is the decimal one if at most two digits follow it."""
    head, _, tail = re.sub(r"[' \u00a0]", ",", number).replace(".", ",").rpartition(",")
    if head and len(tail) <= _MAX_DECIMALS:
        return float(f"{head.replace(',', '')}.{tail}")
    return float(f"{head}{tail}".replace(",", ""))


# What makes an agreement conditional. English, Portuguese and Spanish, the languages the company writes in.
_RESERVATION = re.compile(
    r"""\?|\b(not|no|never|cannot|if|unless|until|maybe|perhaps|almost|but|would|might
    |n[aã]o|nunca|jamais|se|caso|talvez|quase|mas
    |si|siempre\s+que|salvo|quiz[aá]s?|tal\s+vez|casi|pero)\b|n['\u2019]t\b""",
    re.IGNORECASE | re.VERBOSE,
)
# A refusal contains one of these; the bar is high because a lost deal cannot be reopened.
_REFUSAL = re.compile(
    r"""\b(not|no|never|cannot|declin\w+|reject\w*|refus\w+|cancel\w*|withdraw\w*|elsewhere|instead
    |(went|going|go)\s+with|chose|chosen|n[aã]o|nunca|recus\w*|desist\w*|encerr\w*|rechaz\w*)\b|n't\b""",
    re.IGNORECASE | re.VERBOSE,
)
# A plain acceptance of an offer.
_ACCEPTANCE = re.compile(
    r"""\b((we|i)\s+(gladly\s+|hereby\s+)?accept|(we|i)\s+agree\s+to|(it['\u2019]s|we\s+have)\s+a\s+deal
    |aceit(o|amos)|(est[aá]\s+)?fechado|fechamos|de\s+acordo\s+com\s+a\s+proposta
    |acept(o|amos)|trato\s+hecho|de\s+acuerdo\s+con\s+la\s+propuesta)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_MIN_QUOTE_LETTERS = 2


def is_agreement(words: str, quote: str) -> bool:
    """Return whether the customer's quoted sentence has no question, negation or condition in it.

    Args:
        words: What the customer said.
        quote: What the model says they said, verbatim except for case and spaces.
    """
    sentence = _find_quoted(words, quote)
    return bool(sentence) and not _RESERVATION.search(sentence)


def find_acceptance(words: str) -> str:
    """Return the customer's sentence that accepts an offer plainly and without conditions; empty: none."""
    sentences = (match.group().strip() for match in _SENTENCE.finditer(words))
    return next((each for each in sentences if _ACCEPTANCE.search(each) and is_agreement(words, each)), "")


def is_refusal(words: str, quote: str) -> bool:
    """Return whether the customer's quoted sentence says no and is not a question.

    Args:
        words: What the customer said.
        quote: What the model says they said, verbatim except for case and spaces.
    """
    sentence = _find_quoted(words, quote)
    return bool(_REFUSAL.search(sentence)) and "?" not in sentence


def _find_quoted(words: str, quote: str) -> str:
    """Return the customer's whole sentences that contain the quote; empty when they did not say it."""
    words, phrase = _normalise(words), _normalise(quote).strip(" .,;:!\"'\u201c\u201d")
    if len(re.findall(r"[^\W\d_]", phrase)) < _MIN_QUOTE_LETTERS:
        return ""
    found = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", words)
    if found is None:
        return ""
    return " ".join(
        sentence.group().strip()
        for sentence in _SENTENCE.finditer(words)
        if sentence.start() < found.end() and found.start() < sentence.end()
    )


def _normalise(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.replace("\u2019", "'").casefold().splitlines())
    return "\n".join(filter(None, lines))
