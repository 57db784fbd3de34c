"""The table of the scope that each path requires."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from graphs.registry import REGISTRY
from service.auth.principal import Scope

# anyone: no credential is checked; member: any valid credential.
Access: TypeAlias = Scope | Literal["anyone", "member"]

# By the first one or two segments of a path. A path without a row does not exist for callers.
ACCESS: Mapping[str, Access] = {
    # Probes and load balancers have no key. The response shows nothing of any tenant.
    "/health": "anyone",
    # The development CRM checks its own key, CRM_API_KEY, in the same header; it is served on loopback only.
    "/crm": "anyone",
    "/docs": "member",
    "/redoc": "member",
    "/openapi.json": "member",
    "/info": "member",
    "/v1/messages": "runs",
    "/v1/workflows": "runs",
    # LangServe: routes that run a graph, its schemas and its playground.
    **dict.fromkeys((f"/{name}" for name in REGISTRY), "runs"),
    "/v1/approvals": "approvals",
    "/v1/sessions": "sessions",
    "/v1/threads": "erasure",
    "/v1/audit": "audit",
    # The numbers cover all tenants.
    "/v1/agents": "metrics",
    "/metrics": "metrics",
}


def find_access(path: str) -> Access | None:
    """Return what a path requires; None: the table has no row for it."""
    segments = path.split("/", 3)
    return ACCESS.get("/".join(segments[:3])) or ACCESS.get("/".join(segments[:2]))
