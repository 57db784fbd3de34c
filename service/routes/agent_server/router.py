"""The router of the Agent Server API, at the root like LangGraph's own."""

from fastapi import APIRouter

from service.routes.agent_server.assistants import assistants_router
from service.routes.agent_server.info import ok_router
from service.routes.agent_server.runs import runs_router
from service.routes.agent_server.threads import threads_router


def agent_server_router() -> APIRouter:
    """Return the router."""
    router = APIRouter()
    for part in (ok_router(), assistants_router(), threads_router(), runs_router()):
        router.include_router(part)
    return router
