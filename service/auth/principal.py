"""Tenants, users and what they may do."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

# runs: ask graphs and send messages; approvals: see and give decisions; sessions: read conversations;
# erasure: erase threads; audit: read what was done; metrics: read the service's own numbers, which are of all
# tenants; admin: all of these.
Scope: TypeAlias = Literal["runs", "approvals", "sessions", "erasure", "audit", "metrics", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of a tenant.

    Attributes:
        tenant: Whose data it is; nothing of another tenant's is ever shown.
        user: Who acts: the user of a key, or a token's subject.
        scopes: What they may do.
        credential: What vouched for them, for the record: ``key <id>``, ``token``, or nothing.
    """

    tenant: str
    user: str
    scopes: frozenset[Scope] = field(default_factory=frozenset)
    credential: str = ""

    def may(self, scope: Scope) -> bool:
        """Whether the scope is among theirs; ``admin`` is every scope."""
        return scope in self.scopes or "admin" in self.scopes


# Who asks where no authentication is set up; such a service answers on loopback alone.
LOCAL = Identity(tenant="default", user="local", scopes=frozenset({"admin"}))


@dataclass(frozen=True, slots=True)
class Verified:
    """A credential that was found good.

    Attributes:
        identity: Whose it is.
        seconds: For how long it stays so; None: it has no end.
    """

    identity: Identity
    seconds: float | None = None
