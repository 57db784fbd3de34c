"""How many examples property tests try: few in ``make test``, ten times as many in ``make test-thorough``."""

import os

from hypothesis import settings

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
FEWEST = 10

# A deadline is a wall clock, which says little on a busy machine.
settings.register_profile("ventros", deadline=None, max_examples=300 if THOROUGH else 30)
settings.load_profile("ventros")


def examples(count: int) -> int:
    """Return the number of examples for a test that needs about ``count`` to cover its cases."""
    return 3 * count if THOROUGH else max(FEWEST, count // 3)
