"""Which of a run's outcomes are the service's fault; those of callers and of a stop are nobody's failure."""

from collections.abc import Iterator
from typing import Final

from core.errors import RunStopped, ServiceError

SUCCESSES: Final = frozenset({"finished", "waiting", "advanced", "answered"})
_SERVER_ERRORS: Final = 500


def _failures(kind: type[ServiceError]) -> Iterator[str]:
    if kind.status >= _SERVER_ERRORS and kind is not RunStopped:
        yield kind.code
    for narrower in kind.__subclasses__():
        yield from _failures(narrower)


FAILURES: Final = frozenset({*_failures(ServiceError), "failed", "timed_out"})
