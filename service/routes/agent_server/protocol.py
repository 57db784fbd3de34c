"""The streaming protocol of LangGraph's clients: commands, and a thread's events over SSE or a WebSocket."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final
from uuid import UUID, uuid4

import orjson
from fastapi import APIRouter, Response, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from core.errors import BadRequest, NotFound, RateLimited, ServiceError
from service.agent_server.commands import CommandEnvelope, CommandRefused, build_error
from service.agent_server.protocol_events import Event
from service.agent_server.subscriptions import Subscription
from service.auth.principal import Identity
from service.encoding import dump_json
from service.errors import invalid_request, to_service_error
from service.lifespan import Service
from service.routes import sse
from service.routes.agent_server.http import AgentServerRoute, JsonResponse, ThreadId
from service.routes.agent_server.streams import HEARTBEAT_SECONDS
from service.routes.dependencies import OpenService, Requester, get_requester

# Clients know what a WebSocket was closed for by the status that HTTP would have had.
_CLOSE_CODES: Final = 4_000
_MAX_SUBSCRIPTIONS: Final = 100
_SUBSCRIPTIONS: Final = "subscription."


def protocol_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(tags=["threads"], route_class=AgentServerRoute)

    @router.post("/threads/{thread_id}/commands")
    async def execute_command(
        thread_id: ThreadId, body: dict[str, Any], service: OpenService, requester: Requester
    ) -> Response:
        """Carry out a command `{id, method, params}`: `run.start`, `input.respond` or `agent.getTree`.

        Errors of commands are answers with 200; 400 for what is no command.
        """
        try:
            command = CommandEnvelope.model_validate(body)
        except ValidationError as error:
            refused = invalid_request(error.errors(include_url=False, include_context=False))
            raise BadRequest(refused.message, details=refused.details) from None
        return JsonResponse(await service.commands.execute(requester, str(thread_id), command))

    @router.post(
        "/threads/{thread_id}/stream/events",
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def stream_events(
        thread_id: ThreadId, subscription: Subscription, service: OpenService, requester: Requester
    ) -> Response:
        """Stream the events of a thread, over all its runs; the stream stays open.

        It begins with the first event of the run in progress, or after `since`.
        """
        await service.thread_owners.get_owner(requester, str(thread_id))
        events = _format_events(service, requester.tenant, str(thread_id), subscription)
        return sse.stream_response(events, ping_seconds=HEARTBEAT_SECONDS)

    @router.websocket("/threads/{thread_id}/stream/events")
    async def serve_websocket(thread_id: UUID, socket: WebSocket) -> None:
        service: Service = socket.app.state.service
        await _Connection(service, get_requester(socket), str(thread_id), socket).serve()

    return router


async def _format_events(
    service: Service, tenant: str, thread_id: str, subscription: Subscription
) -> AsyncGenerator[bytes, None]:
    async for event in service.protocol_streams.read(tenant, thread_id, subscription):
        name = str(event.get("method", event["type"]))
        yield sse.format_event(name, event, id=event.get("event_id"))


class _Connection:
    """A WebSocket with its subscriptions.

    Args:
        service: The open service.
        identity: The caller.
        thread_id: The thread.
        socket: The WebSocket.
    """

    def __init__(self, service: Service, identity: Identity, thread_id: str, socket: WebSocket) -> None:
        self._service = service
        self._identity = identity
        self._thread_id = thread_id
        self._socket = socket
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[ServiceError] = asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        """Answer commands and send events until the client leaves or the service stops."""
        await self._socket.accept()
        try:
            await self._require_thread()
            receiving = asyncio.create_task(self._receive())
            ends: set[asyncio.Future[Any]] = {receiving, self._failure}
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if self._failure.done():
                    raise self._failure.result()
                await receiving
            finally:
                receiving.cancel()
        except WebSocketDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 - to_service_error() types it; the close code says what it is
            described = to_service_error(error)
            await self._socket.close(_CLOSE_CODES + described.status, described.message[:100])
        finally:
            for reader in self._readers.values():
                reader.cancel()

    async def _require_thread(self) -> None:
        owner = await self._service.thread_owners.find_owner(self._thread_id)
        if owner and owner.tenant != self._identity.tenant:
            raise NotFound(f"there is no thread {self._thread_id!r}")

    async def _receive(self) -> None:
        while True:
            reply = await self._answer(await self._socket.receive_text())
            await self._send(reply)

    async def _answer(self, text: str) -> Event:
        try:
            command = CommandEnvelope.model_validate(orjson.loads(text))
        except (ValueError, ValidationError):
            return build_error(None, "invalid_argument", "a command is {id, method, params} as JSON")
        try:
            await self._count()
        except ServiceError as error:
            return build_error(command.id, "unknown_error", error.message)
        if not command.method.startswith(_SUBSCRIPTIONS):
            return await self._service.commands.execute(self._identity, self._thread_id, command)
        try:
            result = self._change_subscriptions(command)
        except ValidationError as error:
            refused = invalid_request(error.errors(include_url=False, include_context=False))
            return build_error(command.id, "invalid_argument", refused.message)
        except CommandRefused as refusal:
            return build_error(command.id, refusal.code, refusal.message)
        return {"type": "success", "id": command.id, "result": result}

    async def _count(self) -> None:
        """Count a command as a request of the tenant.

        Raises:
            RateLimited: It has sent too many.
        """
        rates = self._service.rates
        if rates is None or not self._identity.tenant:
            return
        status = await rates.count_request(self._identity.tenant)
        if status and not status.allowed:
            raise RateLimited("too many requests; try again in a moment")

    def _change_subscriptions(self, command: CommandEnvelope) -> dict[str, Any]:
        """Begin or end a subscription, and return the result.

        Raises:
            CommandRefused: There is no such command or subscription.
        """
        match command.method.removeprefix(_SUBSCRIPTIONS):
            case "subscribe":
                return self._subscribe(Subscription.model_validate(command.params))
            case "unsubscribe":
                reader = self._readers.pop(str(command.params.get("subscription_id")), None)
                if reader is None:
                    raise CommandRefused("no_such_subscription", "the connection has no such subscription")
                reader.cancel()
                return {}
            case "reconnect":
                # A new connection has no subscriptions: the client subscribes again, with `since`.
                return {"restored": False}
            case _:
                raise CommandRefused("unknown_command", f"there is no command {command.method!r}")

    def _subscribe(self, subscription: Subscription) -> dict[str, Any]:
        if len(self._readers) >= _MAX_SUBSCRIPTIONS:
            raise CommandRefused("invalid_argument", f"a connection has at most {_MAX_SUBSCRIPTIONS} of them")
        subscription_id = str(uuid4())
        self._readers[subscription_id] = asyncio.create_task(self._read(subscription))
        return {"subscription_id": subscription_id}

    async def _read(self, subscription: Subscription) -> None:
        try:
            async for event in self._service.protocol_streams.read(
                self._identity.tenant, self._thread_id, subscription
            ):
                await self._send(event)
        except (WebSocketDisconnect, RuntimeError):
            # The client is gone, which the other task notices too.
            return
        except Exception as error:  # noqa: BLE001 - to_service_error() types it
            if not self._failure.done():
                self._failure.set_result(to_service_error(error))

    async def _send(self, message: Event) -> None:
        await self._socket.send_text(dump_json(message).decode())
