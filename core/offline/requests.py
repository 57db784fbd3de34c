"""What a text asks to be done: its verbs of request, told from what it merely reports."""

from typing import Final

from core.offline.lexicon import word_set
from core.offline.words import concept, surface_words, tokens
from core.texts import normalise_word

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
    """Concepts of the words that stand where a request's verb stands, in order.

    ``help diagnose and resolve`` asks for three things; in ``he reports that trying to export fails``
    nothing is asked for.
    """
    found: list[str] = []
    for clause in _clauses(text):
        words = [normalise_word(word) for word in surface_words(clause)]
        for at, word in enumerate(words):
            if _is_requested(words, at) and concept(word) not in found:
                found.append(concept(word))
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
