"""``/health``, ``/info`` and ``/metrics``: whether the service works, what it is, and its instruments."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import choose_encoder

from core import postgres
from core.embeddings import embedder_kind
from core.errors import MemoryUnavailable
from core.tasks import TaskState
from graphs.registry import REGISTRY
from service.lifespan import Service
from service.observability.peers import Peers, merge_metrics
from service.routes.dependencies import OpenService
from service.version import VERSION

HEALTH_SQL = "SELECT 1"
HEALTH_TIMEOUT_SECONDS = 2.0
# A failed write says so much about the next one. Without runs there is none, so that the report must end.
WRITE_FAILURE_SECONDS = 60.0
# States of a background task that does not do its work.
FAILING_STATES: Final[frozenset[TaskState]] = frozenset({"failing", "restarting"})


def health_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(tags=["service"])

    @router.get("/health", responses={503: {"description": "Something is down; the body names it"}})
    async def health(service: OpenService) -> JSONResponse:
        """Answer healthy if the database answers within two seconds and takes what runs write.

        Degraded, still with 200, while memory or the embedding model fails, an agent fails again and again,
        the CRM or a model rests after it was unavailable, a background task fails or restarts, the last
        write failed and none was tried for a minute, or another process (`WORKERS`) is not healthy.
        """
        if fault := await _find_database_fault(service):
            return _unhealthy_response({"database": "down"}, f"the database is down: {fault}")
        failure = service.saver.last_failure
        if failure and time.monotonic() - failure.at < WRITE_FAILURE_SECONDS:
            return _unhealthy_response(
                {"database": "up", "writes": "down"},
                f"the database answers, but the last write failed: {failure.reason}",
            )
        own = await describe_health(service)
        return JSONResponse(await _add_peers(own, service.peers) if service.peers else own)

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        """Answer as long as the process does, whatever else is down: a restart would fix nothing."""
        return {"status": "alive"}

    @router.get(
        "/health/ready", responses={503: {"description": "Send requests elsewhere; the body says why"}}
    )
    async def ready(service: OpenService) -> JSONResponse:
        """Answer ready if the database is available and the service is not about to stop.

        This does not use the connection pool: a pool in full use says nothing about the database, and a peak
        would take all replicas out at once.
        """
        if service.lifecycle.is_stopping:
            return _not_ready_response(
                "stopping", "the service is stopping; send requests to another replica"
            )
        if service.pool.unavailable_reason:
            return _not_ready_response("database_unavailable", "the database is down")
        return JSONResponse({"status": "ready"})

    @router.get("/info")
    async def info(service: OpenService) -> dict[str, Any]:
        """Return version, graphs, agents and models."""
        return _describe_service(service)

    return router


async def describe_health(service: Service) -> dict[str, Any]:
    """Return the health of this process, whose database answers."""
    failure = service.saver.last_failure
    faults = {
        "writes": f"the last write failed: {failure.reason}" if failure else "",
        "memory": await _find_memory_fault(service),
        "embeddings": service.agents.router.fault,
    }
    degraded_agents = [
        {"agent": name, "failures_in_a_row": failures}
        for name, failures in service.agents.health.degraded.items()
    ]
    tasks = service.tasks.statuses()
    is_failing = any(task.state in FAILING_STATES for task in tasks.values())
    circuits = service.circuits()
    is_resting = any(state != "closed" for state in circuits.values())
    is_degraded = degraded_agents or is_failing or is_resting or any(faults.values())
    return {
        "status": "degraded" if is_degraded else "healthy",
        "checks": {"database": "up", **{name: "down" if fault else "up" for name, fault in faults.items()}},
        "faults": {name: fault for name, fault in faults.items() if fault},
        "circuits": dict(circuits),
        "agents": {"degraded": degraded_agents},
        "tasks": {name: asdict(task) for name, task in tasks.items()},
    }


async def _add_peers(own: dict[str, Any], peers: Peers) -> dict[str, Any]:
    """Return the health of this process with that of the others that serve the port."""
    answers = {
        number: orjson.loads(text) if text else {"status": "unavailable"}
        for number, text in (await peers.ask("health")).items()
    }
    is_healthy = all(health["status"] == "healthy" for health in (own, *answers.values()))
    return {
        **own,
        "status": "healthy" if is_healthy else "degraded",
        "process": peers.number,
        "processes": {
            str(number): health for number, health in sorted({peers.number: own, **answers}.items())
        },
    }


def _describe_service(service: Service) -> dict[str, Any]:
    router = service.agents.router
    return {
        "name": "ventros-agents",
        "version": VERSION,
        # What clients of the Agent Server API may use of it.
        "flags": {"assistants": True, "crons": True},
        "langgraph_py_version": _get_package_version("langgraph"),
        "graphs": {spec.name: {"description": spec.description} for spec in REGISTRY.values()},
        "model": asdict(service.model),
        "agents": {
            name: {"category": spec.category, "description": spec.description}
            for name, spec in service.agents.specs.items()
        },
        "embeddings": {"model": router.model, "kind": embedder_kind(router.model)},
        "crm": "external" if service.settings.crm.api_base else "development CRM, at /crm",
        "database": "external" if service.settings.database.url else "embedded",
        "packages": {
            name: _get_package_version(name) for name in ("langgraph", "langserve", "langchain-core")
        },
    }


def _unhealthy_response(checks: Mapping[str, str], message: str) -> JSONResponse:
    content = {
        "status": "unhealthy",
        "checks": checks,
        "error": "database_unavailable",
        "message": message,
        "details": {"down": [name for name, state in checks.items() if state != "up"]},
    }
    return JSONResponse(content, status_code=503)


def _not_ready_response(code: str, message: str) -> JSONResponse:
    content = {"status": "not ready", "error": code, "message": message, "details": {}}
    return JSONResponse(content, status_code=503, headers={"Retry-After": "2"})


def metrics_router() -> APIRouter:
    """Return the router of ``/metrics``."""
    router = APIRouter(tags=["service"])

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(service: OpenService, accept: Annotated[str, Header()] = "*/*") -> Response:
        """Return counters, gauges and histograms in Prometheus' text format or OpenMetrics."""
        encode, content_type = choose_encoder(accept)
        registry = service.metrics.registry
        if peers := service.peers:
            registry = merge_metrics(registry, peers.number, await peers.ask("metrics"))
        return Response(encode(registry), media_type=content_type)

    return router


async def _find_memory_fault(service: Service) -> str:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_SECONDS):
            await service.memory.check_health()
    except MemoryUnavailable as error:
        return error.message
    except TimeoutError:
        return f"no answer within {HEALTH_TIMEOUT_SECONDS:g} s"
    return ""


async def _find_database_fault(service: Service) -> str | None:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_SECONDS), service.pool.connection() as connection:
            await connection.execute(HEALTH_SQL)
    except TimeoutError:
        return f"no answer within {HEALTH_TIMEOUT_SECONDS:g} s"
    except postgres.DATABASE_UNAVAILABLE as error:
        return type(error).__name__
    return None


def _get_package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
