"""Who is signed in. Keys stay in this process's memory and are never written to disk or to the browser."""

from contextlib import suppress
from typing import Final

from nicegui import app, ui

from console.api import Api, ApiError
from console.settings import ConsoleSettings

SETTINGS: Final = ConsoleSettings.load()
_MAX_SIGNED_IN: Final = 10_000

_apis: dict[str, Api] = {}


def get_api() -> Api | None:
    """Return the API of the person whose browser asks; ``None``: nobody is signed in."""
    return _apis.get(app.storage.browser["id"])


async def sign_in(key: str) -> None:
    """Sign in with an API key; the empty one is for a service that needs none.

    Raises:
        ApiError: The service does not accept the key, or cannot be reached.
    """
    api = Api(SETTINGS.service_url, key)
    try:
        await api.get("/info")
    except ApiError:
        await api.aclose()
        raise
    await sign_out()
    if len(_apis) >= _MAX_SIGNED_IN:
        await _apis.pop(next(iter(_apis))).aclose()
    _apis[app.storage.browser["id"]] = api


async def sign_out() -> None:
    """Forget the key of the person whose browser asks."""
    if api := _apis.pop(app.storage.browser["id"], None):
        await api.aclose()


async def require_api() -> Api | None:
    """Return the API of the person who asks, or send the browser to the sign-in page.

    On a service that needs no key nobody has to sign in.
    """
    if api := get_api():
        return api
    with suppress(ApiError):
        await sign_in("")
        return get_api()
    ui.navigate.to("/sign-in")
    return None
