"""Whether the customer said what the model says they said."""

import re

# What makes an agreement less than one. English and Portuguese, the languages the company writes.
_RESERVED = re.compile(
    r"""\?|\b(not|no|never|cannot|if|unless|until|maybe|perhaps|almost|but|would|might
    |n[aã]o|nunca|jamais|se|caso|talvez|quase|mas)\b|n['\u2019]t\b""",
    re.IGNORECASE | re.VERBOSE,
)
# Without one of these nobody declines; a deal that is lost cannot be opened again.
_DECLINING = re.compile(
    r"""\b(not|no|never|cannot|declin\w+|reject\w*|refus\w+|cancel\w*|withdraw\w*|elsewhere|instead
    |(went|going|go)\s+with|chose|chosen|n[aã]o|nunca|recus\w*|desist\w*|encerr\w*)\b|n't\b""",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_FEWEST_LETTERS = 2


def quoted(words: str, quote: str) -> str:
    """The customer's sentences the quote is from, whole; empty when they did not say it.

    Args:
        words: What the customer said.
        quote: What the model says they said, to the letter but for case and spaces.
    """
    said = _plain(quote).strip(" .,;:!\"'\u201c\u201d")
    if len(re.findall(r"[^\W\d_]", said)) < _FEWEST_LETTERS:
        return ""
    found = re.search(rf"(?<!\w){re.escape(said)}(?!\w)", _plain(words))
    if found is None:
        return ""
    sentences = [
        sentence.group().strip()
        for sentence in _SENTENCE.finditer(_plain(words))
        if sentence.start() < found.end() and found.start() < sentence.end()
    ]
    return " ".join(sentences)


def agrees(words: str, quote: str) -> bool:
    """Whether the quote is the customer's and without reserve: no question, negation or condition in it."""
    sentence = quoted(words, quote)
    return bool(sentence) and not _RESERVED.search(sentence)


def declines(words: str, quote: str) -> bool:
    """Whether the quote is the customer's, says no, and is more than a question."""
    sentence = quoted(words, quote)
    return bool(_DECLINING.search(sentence)) and "?" not in sentence


def _plain(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.replace("\u2019", "'").casefold().splitlines())
    return "\n".join(filter(None, lines))
