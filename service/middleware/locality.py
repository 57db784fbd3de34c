"""Where a request comes from, where that stands in for a credential.

Without authentication whoever can open a connection is let in, so the connection must not leave the machine.
Pages of other sites in the operator's browser are on the machine too: they can send requests to a loopback
address, and reach it by a name of their own (DNS rebinding). So they could with a key that a browser keeps
(``Basic``).
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from starlette.types import Scope

from core.errors import Forbidden
from core.settings import LOOPBACK

Headers = Mapping[bytes, bytes]


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def require_local(scope: Scope, headers: Headers) -> None:
    """Let a request through that reached this machine under its own name.

    Raises:
        Forbidden: It did not. The service refuses to start on another address; this stands where another
            ASGI server listens for it.
    """
    address = (scope.get("server") or ("",))[0]
    named = _without_port(headers.get(b"host", b"localhost").decode("latin-1"))
    # A Unix socket has a path there.
    if ("/" not in address and address and not is_loopback(address)) or not is_loopback(named):
        raise Forbidden(
            "without authentication the service answers on this machine alone, as localhost or 127.0.0.1; "
            "set AUTH_API_KEYS=true or AUTH_JWT_JWKS_URL to be reached from elsewhere"
        )


def require_same_site(headers: Headers, allowed: Sequence[str]) -> None:
    """Refuse what a browser sends for another site's page.

    Args:
        headers: The request's.
        allowed: Origins that may all the same.

    Raises:
        Forbidden: It is another site's.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    if not origin or origin in allowed:
        return
    if origin.partition("://")[2] != headers.get(b"host", b"").decode("latin-1"):
        raise Forbidden(f"pages of {origin!r} may not ask this service; CORS_ORIGINS lists those that may")


def _without_port(authority: str) -> str:
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]
