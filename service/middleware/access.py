"""The table of the scope that each path requires."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from graphs.registry import REGISTRY
from service.auth.principal import Scope

# anyone: no credential is checked; member: any valid credential.
Access: TypeAlias = Scope | Literal["anyone", "member"]

# By the first one to three segments of a path, if need be after a method; the longest row holds. A path
# without a row does not exist for callers.
ACCESS: Mapping[str, Access] = {
    # Probes and load balancers have no key. The response shows nothing of any tenant.
    "/health": "anyone",
    "/ok": "anyone",
    # The development CRM checks its own key, CRM_API_KEY, in the same header; it is served on loopback only.
    "/crm": "anyone",
    # The pages' scripts and styles, which show nothing of anyone.
    "/assets": "anyone",
    "/": "member",
    # Gateways sign what they send, and the route checks that; it is off until the key is set up.
    "/v1/gateways": "anyone",
    "/docs": "member",
    "/openapi.json": "member",
    "/info": "member",
    # The Agent Server API. Routes that write a state or read memory ask for a further scope.
    "/assistants": "runs",
    "/threads": "runs",
    "DELETE /threads": "erasure",
    "/threads/prune": "erasure",
    "/runs": "runs",
    "/store": "runs",
    "/v1/messages": "runs",
    "/v1/runs": "runs",
    "/v1/workflows": "runs",
    # LangServe: routes that run a graph, its schemas and its playground.
    **dict.fromkeys((f"/{name}" for name in REGISTRY), "runs"),
    "/v1/approvals": "approvals",
    "/v1/sessions": "sessions",
    "POST /v1/sessions": "takeover",
    "/v1/overview": "sessions",
    "/v1/memory": "memory:write",
    "/v1/memory/search": "memory:read",
    "/v1/memory/facts": "memory:read",
    "/v1/memory/recall": "memory:read",
    "GET /v1/memory/notes": "memory:read",
    "/v1/memory/forget": "erasure",
    "/v1/threads": "erasure",
    "/v1/audit": "audit",
    "/v1/webhooks": "webhooks",
    # The numbers cover all tenants.
    "/v1/agents": "metrics",
    "/metrics": "metrics",
}


def find_access(path: str, method: str = "GET") -> Access | None:
    """Return what a request requires; None: the table has no row for it."""
    segments = path.split("/", 4)
    for end in (4, 3, 2):
        start = "/".join(segments[:end])
        if access := ACCESS.get(f"{method} {start}") or ACCESS.get(start):
            return access
    return None
