"""Words and sentences: tokens, stems, concepts, and the actions that a text requests."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

from core.offline.lexicon import GENERAL_WORDS, GROUPS, READING_VERBS, STOP_WORDS, word_set
from core.texts import normalise_text, normalise_word

# Longest text looked at in one piece: what lies behind is cut, so that work stays bounded.
MAX_TEXT: Final = 20_000

# A word; decimals and codes with a digit (``2.3.1``, ``T-77``) hold together.
_WORD: Final = re.compile(r"[a-z0-9]+(?:[.,][0-9]+|-(?=[a-z0-9]*[0-9])[a-z0-9]+)*")
_SURFACE: Final = re.compile(r"[^\W_]+(?:[.,][0-9]+|-(?=[^\W_]*[0-9])[^\W_]+)*")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHORTEST_STEM: Final = 3
# Texts up to this length, sentences mostly, are taken apart once.
_REMEMBERED: Final = 400
_SUFFIXES: Final = tuple(
    sorted(
        word_set(
            """
            izations ization amentos amento imentos imento ations ation acoes icoes coes mente ments ment
            ando endo indo aram eram iram ings ing ions ion acao icao idade ness ies ied ers eis ados adas
            idos idas ado ada ido ida ar er ir ou ei am em ed es is ly os as s e a o y i
            """
        ),
        key=lambda suffix: (-len(suffix), suffix),
    )
)


def clean(text: str) -> str:
    """Return the text as valid Unicode without control characters, no longer than ``MAX_TEXT``."""
    valid = text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    return "".join(
        character for character in valid if character in "\n\t" or unicodedata.category(character) != "Cc"
    )


def tokens(text: str) -> list[str]:
    """Return all words, lower case and unaccented; ``snake_case`` and ``camelCase`` come apart."""
    return _WORD.findall(normalise_text(_CAMEL.sub(" ", text)))


def surface_words(text: str) -> list[str]:
    """Return all words as they are written."""
    return _SURFACE.findall(text)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return the word without its English or Portuguese ending; words with digits stay as they are."""
    if not word.isalpha():
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            return _undouble(word[: -len(suffix)])
    return word


def _undouble(root: str) -> str:
    doubled = len(root) > _SHORTEST_STEM and root[-1] == root[-2] and root[-1] not in "lsaeiour"
    return root[:-1] if doubled else root


_CONCEPTS: Final[dict[str, str]] = {
    stem(normalise_word(word)): group.split()[0]
    for group in reversed(GROUPS)
    for word in reversed(group.split())
}
_GENERAL: Final = GENERAL_WORDS | {_CONCEPTS.get(stem(word), stem(word)) for word in GENERAL_WORDS}


@lru_cache(maxsize=65_536)
def concept_of(word: str) -> str:
    """Return the concept that represents a word in comparisons: its group's name, else its stem."""
    root = stem(normalise_word(word))
    return _CONCEPTS.get(root, root)


def concepts(text: str) -> list[str]:
    """Return concepts of the content words, in order, with repetitions."""
    return list(_concepts_of(text) if len(text) <= _REMEMBERED else _concepts_of.__wrapped__(text))


@lru_cache(maxsize=8_192)
def _concepts_of(text: str) -> tuple[str, ...]:
    return tuple(concept_of(word) for word in tokens(text) if is_content(word))


def is_content(word: str) -> bool:
    """Return whether the word (lower case, unaccented) carries meaning of its own."""
    return word not in STOP_WORDS and (len(word) > 1 or word.isdigit())


def is_general(name: str) -> bool:
    """Return whether the concept occurs in nearly every request and says little about this one."""
    return name in _GENERAL


def keywords(text: str, limit: int = 8) -> list[str]:
    """Return the words that say what a request is about, as written, without repetitions."""
    content = [
        (word, concept_of(word))
        for word in surface_words(text)
        if is_content(normalise_word(word)) and normalise_word(word)
    ]
    specific = [(word, name) for word, name in content if not is_general(name)]
    chosen: dict[str, str] = {}
    for word, name in specific or content:
        chosen.setdefault(name, word)
    return list(chosen.values())[:limit]


MAX_SENTENCES: Final = 400

_BREAK: Final = re.compile(r"(?<=[.!?…])[\"'»)\]]*\s+(?=[\"'«(\[]?[A-ZÀ-Ý0-9])|\n+\s*(?:[-*•#]+\s*)?")
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|no|dr|mr|mrs|sr|sra|ex|p\.ex)\.)$", re.IGNORECASE
)
_BULLET: Final = re.compile(r"^\s*(?:[-*•#]+\s+)+")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; lines and list items count as sentences."""
    found: list[str] = []
    for piece in _BREAK.split(text):
        sentence = " ".join(_BULLET.sub("", piece).split())
        if not sentence:
            continue
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {sentence}"
        else:
            found.append(sentence)
        if len(found) >= MAX_SENTENCES:
            break
    return found


def end_sentence(sentence: str) -> str:
    """Return the sentence with a full stop where it has no end."""
    stripped = sentence.strip().rstrip(",;:")
    return stripped if not stripped or stripped[-1] in ".!?…" else f"{stripped}."


def shorten_sentence(text: str, limit: int) -> str:
    """Return the text in one line, cut between words to at most ``limit`` characters."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    if limit <= 1:
        return line[:limit]
    cut = line[: limit - 1]
    head, space, _ = cut.rpartition(" ")
    kept = head if space and len(head) > limit // 2 else cut
    return f"{kept.rstrip(' ,;:.')}…"


def headline(text: str, limit: int = 80) -> str:
    """Return the first sentence, without its end, cut to ``limit``."""
    first = next(iter(sentences(text)), "")
    return shorten_sentence(first.rstrip(".!…"), limit)


_BEFORE_REQUEST: Final = word_set(
    """
    please and then to you must should can could would will lets let us help also or so kindly we i
    favor e entao para voce pode poderia deve ajude ajudar ajuda tambem ou quero preciso gostaria por
    consegue
    """
)
_BEFORE_ATTEMPT: Final = word_set(
    """
    trying tries tried try able unable fails failed fail attempting attempt attempts when while cannot
    not did used tentar tentando tento tentou tenta consigo consegue conseguiu ao quando nao falha
    falhou how como
    """
)
_ENDS: Final = ".!?;:,\n"
_INFLECTED: Final = ("ing", "ed", "ando", "endo", "indo", "ou", "eram", "aram")


def requested_verbs(text: str) -> list[str]:
    """Return concepts of the words that stand where a request's verb stands, in order.

    ``help diagnose and resolve`` asks for three things; in ``he reports that trying to export fails``
    nothing is asked for.
    """
    found: list[str] = []
    for clause in _clauses(text):
        words = [normalise_word(word) for word in surface_words(clause)]
        for at, word in enumerate(words):
            if _is_requested(words, at) and concept_of(word) not in found:
                found.append(concept_of(word))
    return found


def _clauses(text: str) -> list[str]:
    clauses = [""]
    for character in text:
        if character in _ENDS:
            clauses.append("")
        else:
            clauses[-1] += character
    return [clause for clause in clauses if tokens(clause)]


def _is_requested(words: list[str], at: int) -> bool:
    word = words[at]
    if word.endswith(_INFLECTED):
        return False
    if at == 0:
        return True
    before = words[at - 1]
    if before in _BEFORE_ATTEMPT or before not in _BEFORE_REQUEST:
        return False
    return at < 2 or words[at - 2] not in _BEFORE_ATTEMPT  # noqa: PLR2004 - the word before the one before


# Beginnings of verbs that read.
_READING_STEMS: Final = frozenset(stem(verb) for verb in READING_VERBS)
_SHORTEST_PREFIX: Final = 5


def reads(name: str) -> bool:
    """Return whether a tool of this name only reads: its first or last word says so."""
    named = tokens(name)
    return bool(named) and (_is_reading(named[0]) or _is_reading(named[-1]))


def _is_reading(word: str) -> bool:
    root = stem(word)
    if root in _READING_STEMS:
        return True
    return any(len(verb) >= _SHORTEST_PREFIX and word.startswith(verb) for verb in _READING_STEMS)
