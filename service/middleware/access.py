"""Which scope each route asks for: the one table."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from graphs.registry import REGISTRY
from service.auth.principal import Scope

# anyone: no credential is looked at; member: any credential that is good.
Access: TypeAlias = Scope | Literal["anyone", "member"]

# By the first one or two segments of a path; what is under no row does not exist for callers.
ACCESS: Mapping[str, Access] = {
    # Probes and load balancers have no key, and must tell a service that is down from a key that is wrong.
    # The answer says what is up, and nothing of any tenant.
    "/health": "anyone",
    # Has a key of its own, CRM_API_KEY, in the same header; it is there on loopback alone.
    "/crm": "anyone",
    "/docs": "member",
    "/redoc": "member",
    "/openapi.json": "member",
    "/info": "member",
    "/v1/messages": "runs",
    "/v1/workflows": "runs",
    # LangServe's: what runs a graph, and the schemas and the playground for it.
    **dict.fromkeys((f"/{name}" for name in REGISTRY), "runs"),
    "/v1/approvals": "approvals",
    "/v1/sessions": "sessions",
    "/v1/threads": "erasure",
    "/v1/audit": "audit",
    # How often agents are asked and fail is of all tenants too.
    "/v1/agents": "metrics",
    "/metrics": "metrics",
}


def access_to(path: str) -> Access | None:
    """What a path asks for; None: the table has no row for it."""
    segments = path.split("/", 3)
    return ACCESS.get("/".join(segments[:3])) or ACCESS.get("/".join(segments[:2]))
