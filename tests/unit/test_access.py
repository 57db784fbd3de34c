"""Where a request may come from, and which scope it needs."""

from typing import Any

import pytest
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from core.errors import Forbidden, StartupError
from core.settings import ServerSettings
from service.app import create_app
from service.auth.principal import SCOPES
from service.cli.serve import open_server
from service.middleware.access import ACCESS, find_access
from service.middleware.authentication import require_local, require_same_site
from tests.support.service import settings_for


def routes(found: list[BaseRoute]) -> list[str]:
    """The paths of the application's routes; another kind of route would need a door of its own."""
    paths = []
    for route in found:
        if hasattr(route, "original_router"):
            paths += routes(route.original_router.routes)
            continue
        assert isinstance(route, Route | Mount | WebSocketRoute), route
        paths.append(route.path)
    return paths


def test_every_route_has_a_row_in_the_table_and_every_row_a_known_scope() -> None:
    paths = routes(create_app().routes)
    assert len(paths) > 100
    assert [path for path in paths if find_access(path) is None] == []
    assert set(ACCESS.values()) <= {*SCOPES, "anyone", "member"}


def test_only_probes_the_development_crm_and_signed_gateways_ask_for_no_credential() -> None:
    assert [path for path, asked in ACCESS.items() if asked == "anyone"] == [
        "/health",
        "/ok",
        "/crm",
        "/assets",
        "/v1/gateways",
    ]
    assert find_access("/health/ready") == "anyone"
    assert find_access("/healthy") is None
    assert find_access("/crmx") is None


def reached(server: tuple[str, int | None] | None, host: str | None = None) -> None:
    headers = {b"host": host.encode()} if host else {}
    scope: dict[str, Any] = {"type": "http", "server": server}
    require_local(scope, headers)


@pytest.mark.parametrize(
    ("server", "host"),
    [
        (("127.0.0.1", 8000), "localhost:8000"),
        (("::1", 8000), "[::1]:8000"),
        (("127.0.0.1", 8000), None),
        (("/run/agents.sock", None), "localhost"),
        (None, "127.0.0.2"),
    ],
)
def test_requests_of_this_machine_are_allowed(
    server: tuple[str, int | None] | None, host: str | None
) -> None:
    reached(server, host)


@pytest.mark.parametrize(
    ("server", "host"),
    [
        (("10.0.0.7", 8000), "10.0.0.7:8000"),
        (("10.0.0.7", 8000), "localhost"),
        # A name of somebody else's that was made to lead here.
        (("127.0.0.1", 8000), "evil.example:8000"),
        (("127.0.0.1", 8000), "localhost.evil.example"),
        (("127.0.0.1", 8000), "[::2"),
        (("127.0.0.1", 8000), "["),
    ],
)
def test_requests_of_another_machine_or_name_are_refused(
    server: tuple[str, int | None] | None, host: str | None
) -> None:
    with pytest.raises(Forbidden):
        reached(server, host)


def test_requests_of_other_sites_pages_are_refused() -> None:
    own = {b"host": b"127.0.0.1:8000", b"origin": b"http://127.0.0.1:8000"}
    require_same_site(own, ())
    require_same_site({b"host": b"x"}, ())
    crm = {**own, b"origin": b"https://crm.example"}
    require_same_site(crm, ["https://crm.example"])
    for origin in (b"https://crm.example", b"null", b"http://127.0.0.1:8001", b"http://[", b"\xff"):
        with pytest.raises(Forbidden):
            require_same_site({**own, b"origin": origin}, ())


async def test_it_does_not_listen_beyond_this_machine_without_authentication() -> None:
    settings = settings_for("postgresql://nowhere/x", server=ServerSettings(host="0.0.0.0", port=0))
    with pytest.raises(StartupError, match=r"^HOST=0\.0\.0\.0 requires .* AUTH_API_KEYS=true") as said:
        async with open_server(settings):
            raise AssertionError("it listens")
    assert "\n" not in said.value.message
