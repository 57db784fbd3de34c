"""What property tests try: few and always the same examples in ``make test``, new ones in ``test-thorough``.

A change is judged by its own faults, so that ``make test`` gives the same answer for the same code. To search
for what nobody has thought of, ``make test-thorough`` tries ten times as many examples, each time others.
"""

import os

from hypothesis import settings

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
FEWEST = 10

# A deadline is a wall clock, which says little on a busy machine.
settings.register_profile(
    "ventros", deadline=None, derandomize=not THOROUGH, max_examples=300 if THOROUGH else 30
)
settings.load_profile("ventros")


def examples(count: int) -> int:
    """Return the number of examples for a test that needs about ``count`` to cover its cases."""
    return 3 * count if THOROUGH else max(FEWEST, count // 3)
