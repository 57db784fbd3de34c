"""Texts as Postgres can keep them."""


def storable(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, which ``jsonb`` refuses."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


def printable(text: str) -> str:
    """The text with halves of surrogate pairs, which can be neither sent nor stored, made visible."""
    return text.encode(errors="replace").decode()


def is_storable(text: str) -> bool:
    """Whether the text can be kept as it is."""
    return storable(text) == text
