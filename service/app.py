"""Build the FastAPI application: its middleware in order, its error handlers and its routers."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware import Middleware

from core.logging import configure_logging
from core.settings import Settings
from graphs.registry import REGISTRY
from service.errors import install_error_handlers
from service.lifespan import Service, open_service
from service.middleware.authentication import Authentication, is_loopback
from service.middleware.body_limit import BodyLimit
from service.middleware.cors import Cors
from service.middleware.rate_limiting import RateLimiting
from service.middleware.request_id import RequestId
from service.middleware.security_headers import SecurityHeaders
from service.middleware.telemetry import Telemetry
from service.middleware.typed_errors import TypedErrors
from service.routes.agent_server.router import agent_server_router
from service.routes.agents import agents_router
from service.routes.approvals import approvals_router
from service.routes.audit import audit_router
from service.routes.chat_completions import chat_completions_router
from service.routes.commands import answer_commands
from service.routes.dependencies import reject_nul
from service.routes.health import health_router, metrics_router
from service.routes.langserve import langserve_router
from service.routes.mcp import mcp_router, serve_mcp
from service.routes.memory import memory_router
from service.routes.messages import messages_router
from service.routes.overview import overview_router
from service.routes.pages import crm_docs_router, pages_router
from service.routes.runs import runs_router
from service.routes.sessions import sessions_router
from service.routes.threads import threads_router
from service.routes.webhooks import webhooks_router
from service.routes.whatsapp import whatsapp_router
from service.routes.workflows import workflows_router
from service.version import VERSION

DESCRIPTION = """Agent graphs for a CRM: LangGraph, checkpointed in Postgres, served over LangServe.

Each graph has LangServe's routes and a playground under its name; `POST /v1/messages` is what the CRM calls.
Errors are `{error, message, details}`; every response carries `X-Request-Id`."""

# The middleware stack, outermost first: a request passes it from top to bottom, a response from bottom to
# top. The order matters. All of it is plain ASGI, so that streams pass untouched.
MIDDLEWARE: Final[tuple[Any, ...]] = (
    RequestId,  # Every response and every log line of the request carries the id.
    Telemetry,  # Counts and traces what the others answer too: refusals are requests.
    SecurityHeaders,  # Refusals carry them like any other response.
    Cors,  # Answers preflight requests, which have no credential, before authentication would refuse them.
    Authentication,  # Nothing of a stranger's body is read, and a stranger uses up no tenant's rate.
    RateLimiting,  # A rate limit is a tenant's, who is known by now.
    BodyLimit,  # Before a route parses the body.
    TypedErrors,  # What a route raises becomes a response here, which all of the above then see.
)


TAGS: Final[Mapping[str, str]] = {
    "messages": "What the CRM calls when a customer writes.",
    "runs": "What was asked for, where it stands, and its answer.",
    "chat completions": "OpenAI's API, for chat clients that speak it.",
    "approvals": "What waits for a person.",
    "sessions": "The conversations of a contact.",
    "overview": "What goes on in the service.",
    "memory": "What is remembered of a contact.",
    "workflows": "Declarative workflows.",
    "threads": "Erase a thread.",
    "agents": "The graphs and the specialised agents.",
    "audit": "The audit trail.",
    "service": "Health, version and metrics.",
}


def _describe_tags() -> Iterator[dict[str, str]]:
    """Yield the groups of the OpenAPI document in their order; each graph's LangServe routes are one."""
    for name, description in TAGS.items():
        yield {"name": name, "description": description}
    for spec in REGISTRY.values():
        yield {"name": spec.name, "description": f"LangServe: {spec.description}"}


def create_app(service: Service | None = None) -> FastAPI:
    """Return a new application.

    Args:
        service: An open service, which its opener closes. ``None``: the lifespan opens one from the
            environment's settings.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if service is None:
                settings = Settings.load()
                configure_logging(settings.log)
                app.state.service = await stack.enter_async_context(open_service(settings))
            else:
                app.state.service = service
            opened: Service = app.state.service
            await stack.enter_async_context(serve_mcp(app))
            await stack.enter_async_context(answer_commands(opened))
            # Its key may be the default one, which is public.
            if opened.development_crm and is_loopback(opened.settings.server.host):
                app.include_router(crm_docs_router())
                app.mount("/crm", opened.development_crm)
            yield

    app = FastAPI(
        title="Ventros Agents",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        # The pages are our own (service/routes/pages.py).
        docs_url=None,
        redoc_url=None,
        openapi_tags=list(_describe_tags()),
        dependencies=[Depends(reject_nul)],
        middleware=[Middleware(middleware) for middleware in MIDDLEWARE],
    )
    install_error_handlers(app)
    for router in _build_routers():
        app.include_router(router)
    return app


@cache
def _build_routers() -> tuple[APIRouter, ...]:
    """Build the routes once per process: they find the service in the application that a request reaches."""
    return (
        pages_router(),
        health_router(),
        metrics_router(),
        agents_router(),
        messages_router(),
        chat_completions_router(),
        mcp_router(),
        runs_router(),
        approvals_router(),
        threads_router(),
        audit_router(),
        sessions_router(),
        overview_router(),
        memory_router(),
        workflows_router(),
        agent_server_router(),
        webhooks_router(),
        whatsapp_router(),
        langserve_router(),
    )
