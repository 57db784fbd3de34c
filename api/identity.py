"""Who asks. Identity comes from the request's authentication, never from its body."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of a tenant."""

    tenant: str
    user: str


# The service listens on loopback and has one tenant until authentication is set up.
LOCAL = Identity(tenant="default", user="local")
