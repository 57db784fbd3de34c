"""Who may ask, and how often: looked at before anything else of a request is."""

import hmac

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import ServiceError
from dev_crm.access import TokenBucket
from dev_crm.errors import TooManyRequests, Unauthorized, error_response


class ApiAccess:
    """ASGI middleware: under ``prefix``, no request without the key, nor over the rate, gets through.

    A middleware rather than a dependency, so that it also stands before unknown routes and before the
    body is read. Requests with a wrong key do not use up the key's rate.

    Args:
        app: What is behind it.
        prefix: Path it guards, with everything below.
        api_key: The one bearer key.
        bucket: The key's rate limit.
    """

    def __init__(self, app: ASGIApp, *, prefix: str, api_key: SecretStr, bucket: TokenBucket) -> None:
        self._app = app
        self._prefix = prefix
        self._key = api_key.get_secret_value().encode()
        self._bucket = bucket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or answer it with 401 or 429."""
        refusal = self._refusal(scope) if scope["type"] == "http" and self._guards(scope) else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(refusal)(scope, receive, send)

    def _guards(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return path == self._prefix or path.startswith(self._prefix + "/")

    def _refusal(self, scope: Scope) -> ServiceError | None:
        if not self._authorized(scope):
            return Unauthorized("Send the API key as 'Authorization: Bearer <key>'.")
        wait = self._bucket.take()
        if wait:
            return TooManyRequests("Too many requests with this key.", retry_after=wait)
        return None

    def _authorized(self, scope: Scope) -> bool:
        header: bytes = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._key)
