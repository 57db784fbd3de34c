"""Whether a conversation has come to its end."""

from typing import Final

from core.texts import normalise_text

_GOODBYES: Final = frozenset(
    """
bye
bye bye
goodbye
good bye
see you
thanks bye
thank you bye
thanks goodbye
thank you goodbye
have a nice day
tchau
ate logo
ate mais
adeus
obrigado tchau
obrigada tchau
tenha um bom dia
""".strip().splitlines()
)


def says_goodbye(message: str) -> bool:
    """Whether the whole message is a farewell, in English or Portuguese; thanks alone are none."""
    words = "".join(c if c.isalnum() else " " for c in normalise_text(message)).lower()
    return " ".join(words.split()) in _GOODBYES
