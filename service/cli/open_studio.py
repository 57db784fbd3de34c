"""``make studio``: open LangGraph Studio on the running service."""

import sys
import webbrowser
from typing import Final
from urllib.parse import quote

import httpx

from core.errors import StartupError
from core.settings import Settings

STUDIO_ORIGIN: Final = "https://smith.langchain.com"
_TIMEOUT_SECONDS: Final = 5.0


def build_studio_url(base_url: str) -> str:
    """Return Studio's address for a service."""
    return f"{STUDIO_ORIGIN}/studio/?baseUrl={quote(base_url, safe='')}"


def main() -> int:
    """Open Studio in the browser and print its address; return 1 where it could not reach the service."""
    try:
        settings = Settings.load()
        base_url = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{settings.server.port}"
        _require_reachable(base_url, settings)
    except StartupError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        return 1
    url = build_studio_url(base_url)
    print(f"LangGraph Studio: {url}")  # noqa: T201 - the operator's terminal
    webbrowser.open(url)
    return 0


def _require_reachable(base_url: str, settings: Settings) -> None:
    try:
        httpx.get(f"{base_url}/ok", timeout=_TIMEOUT_SECONDS).raise_for_status()
    except httpx.HTTPError:
        raise StartupError(
            f"no service answers at {base_url}: make serve starts it, make studio URL=http://... names it"
        ) from None
    if STUDIO_ORIGIN not in settings.server.cors_origins:
        raise StartupError(
            f"Studio's page may not call the service; set CORS_ORIGINS={STUDIO_ORIGIN} and start it again"
        )


if __name__ == "__main__":
    sys.exit(main())
