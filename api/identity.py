"""Who asks. Identity comes from the request's authentication, never from its body."""

from starlette.requests import HTTPConnection

from identity.principal import LOCAL, Identity

__all__ = ["LOCAL", "Identity", "requester"]


def requester(connection: HTTPConnection) -> Identity:
    """Who a request is from, as :class:`api.authentication.Authentication` found."""
    identity: Identity = connection.state.identity
    return identity
