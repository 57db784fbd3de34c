"""What the console is told by its environment."""

import os
import secrets
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings:
    """Settings of the console.

    Attributes:
        service_url: Where the service listens (``SERVICE_URL``).
        host: The address to listen on (``CONSOLE_HOST``).
        port: The port to listen on (``CONSOLE_PORT``).
        secret: Signs cookies (``CONSOLE_SECRET``); several consoles behind one address need the same. By
            default a new one, so that people sign in again after a restart.
    """

    service_url: str
    host: str
    port: int
    secret: str

    @classmethod
    def load(cls) -> Self:
        """Read the environment."""
        return cls(
            service_url=os.environ.get("SERVICE_URL", "http://127.0.0.1:8000").rstrip("/"),
            host=os.environ.get("CONSOLE_HOST", "127.0.0.1"),
            port=int(os.environ.get("CONSOLE_PORT", "8001")),
            secret=os.environ.get("CONSOLE_SECRET") or secrets.token_urlsafe(32),
        )
