"""The ASGI application."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import Depends, FastAPI

from core.logging import configure_logging
from core.settings import Settings
from service import errors
from service.lifespan import Service, open_service
from service.middleware.authentication import Authentication, is_loopback
from service.middleware.body_limit import BodyLimit
from service.middleware.cors import Cors
from service.middleware.rate_limiting import RateLimiting
from service.middleware.request_id import RequestId
from service.middleware.security_headers import SecurityHeaders
from service.middleware.telemetry import TelemetryMiddleware
from service.middleware.typed_errors import TypedErrors
from service.routes.agents import agents_router
from service.routes.approvals import approvals_router
from service.routes.audit import audit_router
from service.routes.dependencies import reject_nul
from service.routes.health import health_router
from service.routes.langserve import langserve_router
from service.routes.messages import messages_router
from service.routes.metrics import metrics_router
from service.routes.sessions import sessions_router
from service.routes.threads import threads_router
from service.routes.workflows import router as workflows_router
from service.version import VERSION

DESCRIPTION = """Agent graphs for a CRM: LangGraph, checkpointed in Postgres, served over LangServe.

Each graph has LangServe's routes and a playground under its name; `POST /v1/messages` is what the CRM calls.
Errors are `{error, message, details}`; every response carries `X-Request-Id`."""


def make_app(service: Service | None = None) -> FastAPI:
    """The application.

    Args:
        service: Already open, and then closed by whoever opened it; ``None``: opened from the
            environment's settings by the lifespan.
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
            # Its key may be the default one, which everybody knows.
            if opened.development_crm and is_loopback(opened.settings.server.host):
                app.mount("/crm", opened.development_crm)
            yield

    app = FastAPI(
        title="Ventros Agents",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(reject_nul)],
    )
    # The last one is asked first.
    app.add_middleware(TypedErrors)
    app.add_middleware(BodyLimit)
    app.add_middleware(RateLimiting)
    app.add_middleware(Authentication)
    app.add_middleware(Cors)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TelemetryMiddleware)
    app.add_middleware(RequestId)
    errors.install(app)
    app.include_router(health_router())
    app.include_router(metrics_router())
    app.include_router(agents_router())
    app.include_router(messages_router())
    app.include_router(approvals_router())
    app.include_router(threads_router())
    app.include_router(audit_router())
    app.include_router(sessions_router())
    app.include_router(workflows_router)
    app.include_router(langserve_router())
    return app
