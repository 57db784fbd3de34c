"""``/ok``, which LangGraph's clients ask before anything else. ``/info`` is the service's own."""

from fastapi import APIRouter


def ok_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(tags=["agent server"])

    @router.get("/ok")
    async def ok() -> dict[str, bool]:
        """Answer while the process does."""
        return {"ok": True}

    return router
