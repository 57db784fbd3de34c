"""Tenants, users and their permissions."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from core.context import Actor

# runs: run graphs and send messages; approvals: list and decide approvals; sessions: read conversations;
# takeover: take conversations over from agents, reply in them and give them back; memory:read, memory:write:
# read what is remembered of contacts, keep notes on them; erasure: erase threads and memory; audit: read the
# audit trail; webhooks: choose where the tenant's events are sent; metrics: read the service's own numbers,
# which cover all tenants; admin: all of these.
Scope: TypeAlias = Literal[
    "runs",
    "approvals",
    "sessions",
    "takeover",
    "memory:read",
    "memory:write",
    "erasure",
    "audit",
    "webhooks",
    "metrics",
    "admin",
]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated user of a tenant.

    Attributes:
        tenant: The tenant; nothing of another tenant is ever shown.
        user: The user of an API key, or the subject of a token.
        scopes: What the user may do.
        credential: The credential that was presented: ``key <id>``, ``token``, or empty.
    """

    tenant: str
    user: str
    scopes: frozenset[Scope] = field(default_factory=frozenset)
    credential: str = ""

    def has_scope(self, scope: Scope) -> bool:
        """Return whether the user has the scope; ``admin`` includes every scope."""
        return scope in self.scopes or "admin" in self.scopes


# The caller where no authentication is configured; such a service answers on loopback only.
LOCAL = Identity(tenant="default", user="local", scopes=frozenset({"admin"}))


@dataclass(frozen=True, slots=True)
class VerifiedCredential:
    """A credential that was found valid.

    Attributes:
        identity: Its owner.
        seconds: How long it stays valid; None: it does not expire.
    """

    identity: Identity
    seconds: float | None = None


def build_actor(identity: Identity, *, thread_id: str = "", run_id: str = "") -> Actor:
    """Return the caller as the audit trail names them.

    Args:
        identity: The caller.
        thread_id: The thread the action concerns; empty: none.
        run_id: The run that performs the action; empty: none.
    """
    return Actor(
        tenant=identity.tenant,
        user=identity.user,
        key_id=identity.credential,
        thread_id=thread_id,
        run_id=run_id,
    )
