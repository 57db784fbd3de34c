"""How large a number may be."""

from typing import Final

# A checkpoint holds whole numbers of 64 bits.
LARGEST: Final = 2**63
