"""Read parts of a thread by path, such as ``values.messages[-1].content``."""

import re
from collections.abc import Mapping
from typing import Any, Final

from core.errors import InvalidRequest
from service.encoding import to_plain

_ROOTS: Final = ("values", "metadata", "interrupts")
_PATH: Final = re.compile(r"[A-Za-z_][\w-]*((\.[\w-]+)|(\[-?\d{1,9}\]))*")
_STEP: Final = re.compile(r"\.?([\w-]+)|\[(-?\d+)\]")


def extract(thread: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """Return what is at each path of a thread, by alias; null where there is nothing.

    Raises:
        InvalidRequest: A path is malformed.
    """
    for alias, path in paths.items():
        if not _PATH.fullmatch(path) or not path.startswith(_ROOTS):
            raise InvalidRequest(
                f"extract.{alias[:50]}: a path is such as values.messages[-1].content, "
                f"and begins with {', '.join(_ROOTS)}"
            )
    plain = to_plain({name: thread.get(name) for name in _ROOTS})
    return {alias: _walk(plain, path) for alias, path in paths.items()}


def _walk(value: Any, path: str) -> Any:
    for name, index in _STEP.findall(path):
        if name and isinstance(value, dict):
            value = value.get(name)
        elif index and isinstance(value, list) and -len(value) <= int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return value
