"""The one door: who a request is from, and whether they may ask what they ask."""

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import Forbidden, NotFound, ServiceError, Unauthenticated
from service.auth.principal import LOCAL, Identity
from service.errors import error_response, to_service_error
from service.lifespan import Service
from service.middleware.access import Access, find_access
from service.middleware.authentication import require_local, require_same_site
from service.middleware.locality import Headers

REALM = 'realm="ventros-agents"'


class Authentication:
    """ASGI middleware that stands before every route, mounted app, document and unknown path alike.

    Plain ASGI, as streams must pass untouched; before the routes, so that the body of a stranger is not read.
    Who asks is then in ``request.state.identity``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it with 401, 403 or 404."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            identity = await _admitted(scope, headers, scope["app"].state.service)
        except Exception as error:  # noqa: BLE001 - describe() types it: the database may be away
            await _refusal(to_service_error(error), scope, headers)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        with structlog.contextvars.bound_contextvars(tenant=identity.tenant):
            await self._app(scope, receive, send)


async def _admitted(scope: Scope, headers: Headers, service: Service) -> Identity:
    allowed = service.settings.server.cors_origins
    if service.authenticator is None:
        require_local(scope, headers)
        require_same_site(headers, allowed)
        return LOCAL
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    asked = find_access(path)
    if asked == "anyone":
        return Identity(tenant="", user="")
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    identity = await service.authenticator.identify(authorization)
    if authorization[:5].lower() == "basic":
        require_same_site(headers, allowed)
    _require_access(identity, asked, path)
    return identity


def _require_access(identity: Identity, asked: Access | None, path: str) -> None:
    if asked is None:
        raise NotFound(f"there is nothing at {path!r}", details={"path": path})
    if asked not in {"member", "anyone"} and not identity.may(asked):  # type: ignore[arg-type]  # a scope, then
        raise Forbidden(
            f"this asks for the scope {asked!r}, which your credential does not have",
            details={"scope": asked, "scopes": sorted(identity.scopes)},
        )


def _refusal(error: ServiceError, scope: Scope, headers: Headers) -> Response:
    answer = error_response(error)
    if challenge := _challenge(error, scope, headers):
        answer.headers["WWW-Authenticate"] = challenge
    return answer


def _challenge(error: ServiceError, scope: Scope, headers: Headers) -> str:
    """RFC 6750; a browser that opens a page is asked for a user and a password, the key being the latter."""
    match error:
        case Unauthenticated() if scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b""):
            return f'Basic {REALM}, charset="UTF-8"'
        case Unauthenticated() if b"authorization" in headers:
            return f'Bearer {REALM}, error="invalid_token"'
        case Unauthenticated():
            return f"Bearer {REALM}"
        case Forbidden() if needed := error.details.get("scope"):
            return f'Bearer {REALM}, error="insufficient_scope", scope="{needed}"'
    return ""
