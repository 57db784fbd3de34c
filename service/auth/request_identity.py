"""Who asks. Identity comes from the request's authentication, never from its body."""

from starlette.requests import HTTPConnection

from core.context import Actor
from service.auth.principal import LOCAL, Identity

__all__ = ["LOCAL", "Identity", "actor_of", "requester"]


def requester(connection: HTTPConnection) -> Identity:
    """Who a request is from, as :class:`service.middleware.authentication.Authentication` found."""
    identity: Identity = connection.state.identity
    return identity


def actor_of(identity: Identity, *, thread_id: str = "", run_id: str = "") -> Actor:
    """The caller as the records name them.

    Args:
        identity: The caller.
        thread_id: The thread they do something on; empty: on none.
        run_id: The run that does it for them; empty: none does.
    """
    return Actor(
        tenant=identity.tenant,
        user=identity.user,
        key_id=identity.credential,
        thread_id=thread_id,
        run_id=run_id,
    )
