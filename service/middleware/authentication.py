"""Authenticate every request, and check that its caller may do what it asks for.

Without authentication whoever can open a connection is let in, so the connection must not leave the machine.
Pages of other sites in the operator's browser are on the machine too: they can send requests to a loopback
address, or reach it under a name of their own (DNS rebinding). The same holds for a key that a browser stores
(``Basic``).
"""

import asyncio
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.context import Context, set_context
from core.errors import Forbidden, NotFound, ServiceError, Unauthenticated
from core.settings import LOOPBACK
from service.auth.principal import LOCAL, Identity
from service.errors import error_response, to_service_error
from service.lifespan import Service
from service.middleware.access import Access, find_access

REALM = 'realm="ventros-agents"'

Headers = Mapping[bytes, bytes]


class Authentication:
    """ASGI middleware in front of every route, mounted app, document and unknown path alike.

    It runs before the routes, so that a stranger's body is not read. The caller is then in
    ``request.state.identity``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with 401, 403 or 404."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            identity = await _identify(scope, headers, scope["app"].state.service)
        except Exception as error:  # noqa: BLE001 - to_service_error() types it: the database may be unavailable
            await _refuse(to_service_error(error), scope, headers)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        if identity.tenant:
            set_context(Context(tenant=identity.tenant, user=identity.user))
            # The rest of the request waits for the tenant's turn, see core.fair_loop.
            await asyncio.sleep(0)
        with structlog.contextvars.bound_contextvars(tenant=identity.tenant):
            await self._app(scope, receive, send)


async def _identify(scope: Scope, headers: Headers, service: Service) -> Identity:
    allowed_origins = service.settings.server.cors_origins
    if service.authenticator is None:
        require_local(scope, headers)
        require_same_site(headers, allowed_origins)
        return LOCAL
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    access = find_access(path, _get_method(scope))
    if access == "anyone":
        return Identity(tenant="", user="")
    authorization = _read_credential(headers)
    identity = await service.authenticator.identify(authorization)
    if authorization[:5].lower() == "basic":
        require_same_site(headers, allowed_origins)
    _require_access(identity, access, path)
    return identity


def _get_method(scope: Scope) -> str:
    """Return the HTTP method; a WebSocket begins with a GET."""
    return str(scope.get("method", "GET"))


def _read_credential(headers: Headers) -> str:
    """Return the credential as in ``Authorization``; LangGraph's clients send keys as ``X-Api-Key``."""
    if key := headers.get(b"x-api-key"):
        return headers.get(b"authorization", b"Bearer " + key).decode("latin-1")
    return headers.get(b"authorization", b"").decode("latin-1")


def _require_access(identity: Identity, access: Access | None, path: str) -> None:
    if access is None:
        raise NotFound(f"there is nothing at {path!r}", details={"path": path})
    if access not in {"member", "anyone"} and not identity.has_scope(access):  # type: ignore[arg-type]  # a scope, then
        raise Forbidden(
            f"this needs the scope {access!r}, which your credential does not have",
            details={"scope": access, "scopes": sorted(identity.scopes)},
        )


def _refuse(error: ServiceError, scope: Scope, headers: Headers) -> Response:
    answer = error_response(error)
    if challenge := _build_challenge(error, scope, headers):
        answer.headers["WWW-Authenticate"] = challenge
    return answer


def _build_challenge(error: ServiceError, scope: Scope, headers: Headers) -> str:
    """Return the challenge of RFC 6750; a browser that opens a page is asked for a password, the key."""
    match error:
        case Unauthenticated() if _get_method(scope) == "GET" and b"text/html" in headers.get(b"accept", b""):
            return f'Basic {REALM}, charset="UTF-8"'
        case Unauthenticated() if b"authorization" in headers:
            return f'Bearer {REALM}, error="invalid_token"'
        case Unauthenticated():
            return f"Bearer {REALM}"
        case Forbidden() if needed := error.details.get("scope"):
            return f'Bearer {REALM}, error="insufficient_scope", scope="{needed}"'
    return ""


def is_loopback(host: str) -> bool:
    """Return whether an address or a name is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def require_local(scope: Scope, headers: Headers) -> None:
    """Check that a request reached this machine under its own name.

    Raises:
        Forbidden: It did not. The service refuses to start on another address; this check is for another
            ASGI server that listens for it.
    """
    address = (scope.get("server") or ("",))[0]
    host = _strip_port(headers.get(b"host", b"localhost").decode("latin-1"))
    # For a Unix socket, the address is a path.
    if ("/" not in address and address and not is_loopback(address)) or not is_loopback(host):
        raise Forbidden(
            "without authentication the service answers on this machine alone, as localhost or 127.0.0.1; "
            "set AUTH_API_KEYS=true or AUTH_JWT_JWKS_URL to be reached from elsewhere"
        )


def require_same_site(headers: Headers, allowed_origins: Sequence[str]) -> None:
    """Refuse what a browser sends for another site's page.

    Args:
        headers: The request's.
        allowed_origins: Other sites that are allowed.

    Raises:
        Forbidden: The request comes from another site's page.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    if not origin or origin in allowed_origins:
        return
    if origin.partition("://")[2] != headers.get(b"host", b"").decode("latin-1"):
        raise Forbidden(f"pages of {origin!r} may not call this service; CORS_ORIGINS lists those that may")


def _strip_port(authority: str) -> str:
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]
