"""The CRM as an ASGI application."""

from fastapi import FastAPI, Request
from pydantic import SecretStr

from core.postgres import Pool
from dev_crm.access import ApiAccess, TokenBucket
from dev_crm.api import install_error_handlers
from dev_crm.routes import router

API_PREFIX = "/api/v1"

DESCRIPTION = """
Stands in for a real CRM during development, seeded with the customers of a fictional small company.
Messages are stored, not delivered.
"""


def create_crm(pool: Pool, api_key: SecretStr, *, requests_per_minute: int = 6000) -> FastAPI:
    """Return the development CRM, to be mounted or served on its own; ``migrate`` creates its tables.

    Args:
        pool: The service's pool: connections autocommit and return rows as dicts.
        api_key: Bearer key that every request under ``/api/v1`` must carry.
        requests_per_minute: Rate limit of the key, per process.

    Raises:
        ValueError: The key is empty or the rate is not positive.
    """
    if not api_key.get_secret_value():
        raise ValueError("the development CRM's api_key must not be empty")
    app = FastAPI(title="Development CRM", description=DESCRIPTION, version="1", redirect_slashes=False)
    app.state.pool = pool
    install_error_handlers(app)
    app.include_router(router, prefix=API_PREFIX)
    app.add_middleware(ApiAccess, prefix=API_PREFIX, api_key=api_key, bucket=TokenBucket(requests_per_minute))

    @app.get("/", tags=["about"])
    async def about(request: Request) -> dict[str, str]:
        """Say what this application is and where its documentation is."""
        root = request.scope.get("root_path", "")
        return {
            "name": "Development CRM",
            "about": "This is the development CRM, not a real one.",
            "docs": f"{root}/docs",
            "openapi": f"{root}/openapi.json",
            "api": f"{root}{API_PREFIX}",
        }

    return app
