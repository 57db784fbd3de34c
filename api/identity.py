"""Who asks. Identity comes from the request's authentication, never from its body."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of a tenant."""

    tenant: str
    user: str


# The service listens on loopback and has one tenant until authentication is set up.
LOCAL = Identity(tenant="default", user="local")


def requester(connection: HTTPConnection) -> Identity:
    """Who a request is from, as its authentication said."""
    identity: Identity = getattr(connection.state, "identity", LOCAL)
    return identity
