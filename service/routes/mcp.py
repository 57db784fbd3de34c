"""``POST /mcp``: the agents and graphs as tools of the Model Context Protocol, without sessions.

Only this module imports the protocol's SDK. Each request stands alone, so that any replica answers it. A tool
acts with its caller's tenant and scopes.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI
from fastapi.encoders import jsonable_encoder
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.errors import InvalidRequest, NotFound, ServiceError
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from service.auth.principal import Identity
from service.conversations.sessions import SESSION_GRAPH
from service.errors import error_body, invalid_request, to_service_error
from service.lifespan import Service
from service.routes.dependencies import CONTACT_HEADER, get_requester
from service.routes.message_models import MessageRequest, MessageResponse
from service.routes.messages import RESULT_MODES, WAITING_TEXT, answer_message, get_text, prepare_message
from service.runs.inputs import build_graph_input, require_storable
from service.runs.output import build_served_output_schema
from service.runs.preconditions import check_new_thread
from service.runs.request import build_run_request
from service.version import VERSION

PATH: Final = "/mcp"
# A journey's turns are a customer's replies, which reach it through the coordinator.
GRAPH_TOOLS: Final[Mapping[str, GraphSpec]] = {
    name: spec for name, spec in REGISTRY.items() if spec is not SESSION_GRAPH and not spec.journey
}
_INSTRUCTIONS: Final = (
    "Agents of a CRM. A tool answers for one contact of the CRM. Where a result lists interrupts, a person "
    "of the company decides before it is done."
)


class AgentCall(BaseModel):
    """The arguments of a tool that asks an agent."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(min_length=1, max_length=20_000, description="What the customer writes or wants")
    contact_id: str = Field(min_length=1, max_length=200, description="The CRM contact it is about")
    session_id: str | None = Field(
        None, description="The session_id of an earlier result, to continue that conversation"
    )


@asynccontextmanager
async def serve_mcp(app: FastAPI) -> AsyncIterator[None]:
    """Serve the protocol at :data:`PATH` of an application whose service is open."""
    service: Service = app.state.service
    # Hosts and origins are checked before (service/middleware/authentication.py).
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    manager = StreamableHTTPSessionManager(
        _build_server(service),
        stateless=True,
        json_response=True,
        security_settings=security,
        max_request_body_size=service.settings.limits.limit_body_bytes,
    )
    async with manager.run():
        app.state.mcp = manager
        yield


def mcp_router() -> APIRouter:
    """Return the router: ``POST`` alone, as there are no sessions to follow or to end."""
    router = APIRouter()
    router.routes.append(Route(PATH, _Endpoint(), methods=["POST"], include_in_schema=False))
    return router


class _Endpoint:
    """The protocol's ASGI application, which is there while the service is open."""

    path: Final = PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # As FastAPI's routes do, so that logs and metrics name it.
        scope["route"] = self
        manager: StreamableHTTPSessionManager = scope["app"].state.mcp
        await manager.asgi_app(scope, receive, send)


def _build_server(service: Service) -> Server[Any]:
    async def list_tools(context: ServerRequestContext[Any], _: Any) -> ListToolsResult:
        return ListToolsResult(tools=list(_describe_tools(service, _get_contact(context))))

    async def call_tool(context: ServerRequestContext[Any], call: CallToolRequestParams) -> CallToolResult:
        identity = get_requester(_get_request(context))
        try:
            arguments = _bind_contact(call.arguments or {}, _get_contact(context))
            text, result = await _call(service, identity, call.name, arguments)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False)
            return _refuse(invalid_request(faults, whole="arguments"))
        except Exception as error:  # noqa: BLE001 - to_service_error() types it; the client's model reads it
            return _refuse(to_service_error(error))
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=result)

    return Server(
        "ventros-agents",
        version=VERSION,
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _get_contact(context: ServerRequestContext[Any]) -> str:
    """Return the contact to whom the client's connection is bound; empty: its calls name theirs."""
    return _get_request(context).headers.get(CONTACT_HEADER, "")


def _get_request(context: ServerRequestContext[Any]) -> Request:
    return cast("Request", context.request)


def _bind_contact(arguments: Mapping[str, Any], contact: str) -> dict[str, Any]:
    """Return a call's arguments with the connection's contact.

    Raises:
        InvalidRequest: The call names another, which its model may have been talked into.
    """
    if contact and "contact_id" in arguments:
        raise InvalidRequest(f"contact_id: {CONTACT_HEADER} names the contact; leave it out")
    return {**arguments, "contact_id": contact} if contact else dict(arguments)


def _describe_tools(service: Service, contact: str) -> Iterator[Tool]:
    agents = {name: spec.description for name, spec in service.agents.specs.items()}
    for name, description in {SESSION_GRAPH.name: SESSION_GRAPH.description, **agents}.items():
        yield _build_tool(name, description, AgentCall, MessageResponse, contact)
    for spec in GRAPH_TOOLS.values():
        description = f"{spec.description} {spec.suits}"
        yield _build_tool(
            spec.name, description, spec.input_schema, build_served_output_schema(spec), contact
        )


def _build_tool(
    name: str, description: str, arguments: type[BaseModel], output: type[BaseModel], contact: str
) -> Tool:
    schema = arguments.model_json_schema()
    if contact:
        schema["properties"].pop("contact_id", None)
        schema["required"] = [field for field in schema.get("required", ()) if field != "contact_id"]
    return Tool(
        name=name,
        description=description,
        input_schema=schema,
        output_schema=output.model_json_schema(mode="serialization"),
    )


async def _call(
    service: Service, identity: Identity, tool: str, arguments: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return what a tool answers, as text and as its output schema says.

    Raises:
        NotFound: There is no such tool.
    """
    require_storable(arguments)
    if tool in service.agents.specs or tool == SESSION_GRAPH.name:
        call = AgentCall.model_validate(arguments)
        agent = "" if tool == SESSION_GRAPH.name else tool
        run = await prepare_message(MessageRequest(**call.model_dump(), agent=agent), service, identity)
        answer, _ = await answer_message(run, service)
        return get_text(answer), answer
    if tool not in GRAPH_TOOLS:
        raise NotFound(f"there is no tool {tool[:100]!r}; tools/list has them")
    spec = GRAPH_TOOLS[tool]
    if unknown := sorted(arguments.keys() - spec.input_schema.model_fields.keys()):
        raise InvalidRequest(f"{unknown[0][:100]}: the tool {tool!r} takes no such argument")
    graph_input = build_graph_input(spec, arguments)
    check_new_thread(graph_input)
    request = build_run_request(
        service.graphs[tool], spec, graph_input, identity=identity, thread_id=None, modes=RESULT_MODES
    )
    result = await service.runs.run_to_end(request)
    output: dict[str, Any] = jsonable_encoder(result.to_output(request.thread_id, service.model))
    text = WAITING_TEXT if output["interrupts"] else json.dumps(output, ensure_ascii=False)
    return text, output


def _refuse(error: ServiceError) -> CallToolResult:
    body = error_body(error)
    text = f"{body['error']}: {body['message']}"
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=body, is_error=True
    )
