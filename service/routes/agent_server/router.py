"""The router of the Agent Server API, at the root like LangGraph's own."""

from fastapi import APIRouter

from service.routes.agent_server.assistants import assistants_router
from service.routes.agent_server.crons import crons_router
from service.routes.agent_server.info import ok_router
from service.routes.agent_server.protocol import protocol_router
from service.routes.agent_server.runs import runs_router
from service.routes.agent_server.stateless_runs import stateless_runs_router
from service.routes.agent_server.store import store_router
from service.routes.agent_server.streams import streams_router
from service.routes.agent_server.thread_state import thread_state_router
from service.routes.agent_server.threads import threads_router


def agent_server_router() -> APIRouter:
    """Return the router."""
    router = APIRouter()
    for part in (
        ok_router(),
        assistants_router(),
        threads_router(),
        thread_state_router(),
        # Before the routes of one run, whose id is no `stream`.
        streams_router(),
        runs_router(),
        protocol_router(),
        # Before anything that takes a word after `/runs` for a run.
        crons_router(),
        stateless_runs_router(),
        store_router(),
    ):
        router.include_router(part)
    return router
