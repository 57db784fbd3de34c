"""``/v1/chat/completions`` and ``/v1/models``: the agents for clients of OpenAI's API, such as Open WebUI.

An agent is a model; ``coordinator`` finds the agent for each message. A completion is a message of a session,
like one at ``/v1/messages``.
"""

import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid5

import orjson
from fastapi import APIRouter, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from langchain_core.callbacks import AsyncCallbackHandler, AsyncCallbackManager, BaseCallbackManager
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.errors import InvalidRequest, NotFound, ServiceError
from nodes.coordinator.state import EarlierMessage
from service.auth.principal import Identity
from service.conversations.sessions import SESSION_GRAPH
from service.errors import error_response, invalid_request
from service.lifespan import Service
from service.routes import sse
from service.routes.dependencies import (
    CONTACT_HEADER,
    RUN_HEADER,
    SESSION_HEADER,
    THREAD_HEADER,
    OpenService,
    Requester,
    answer_until_disconnect,
)
from service.routes.message_models import MessageRequest
from service.routes.messages import (
    MessageRun,
    advance_journey,
    answer_message,
    build_response,
    get_text,
    prepare_message,
)
from service.runs.inputs import require_storable
from service.runs.output import RunEvents, RunResult
from service.runs.request import check_thread_id, new_thread_id

Chunk = dict[str, Any]

# Names the contact of a conversation that no customer of the CRM holds.
CHAT_CONTACT: Final = "chat:"
# Sessions of Open WebUI's conversations, whose ids are its own.
_CHATS: Final = UUID("0d6b7f0e-6d4a-4b0b-8a55-3f1f4b8f6c11")
_MAX_HISTORY: Final = 100
# What a client has shown cannot be taken back.
_WITHDRAWN: Final = "\n\n[The text above is withdrawn.]\n\n"
_ERROR_TYPES: Final = {
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.FORBIDDEN: "permission_error",
}


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message of the conversation; system prompts are not followed, as agents have their own."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """How a completion is streamed."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A conversation whose last message is to be answered; settings of sampling have no effect."""

    _storable = model_validator(mode="before")(require_storable)

    model: str = Field(description="An agent, or coordinator: whichever agent the message is for")
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = Field(None, description="One answer is given")
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(
        None, description="None: an agent has its own"
    )


class UsageCounter(AsyncCallbackHandler):
    """Adds up the tokens that the models of a run used.

    LangChain's own handler leaves out models that do not say their name.
    """

    def __init__(self) -> None:
        self._input = self._output = 0

    async def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Count a reply."""
        for generation in (each for replies in response.generations for each in replies):
            message = generation.message if isinstance(generation, ChatGeneration) else None
            if isinstance(message, AIMessage) and (usage := message.usage_metadata):
                self._input += usage["input_tokens"]
                self._output += usage["output_tokens"]

    def to_dict(self) -> dict[str, int] | None:
        """Return the sums in OpenAI's form; ``None``: the models did not say."""
        if not (self._input or self._output):
            return None
        return {
            "prompt_tokens": self._input,
            "completion_tokens": self._output,
            "total_tokens": self._input + self._output,
        }


class OpenAiRoute(APIRoute):
    """A route whose errors have OpenAI's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                return _refuse(invalid_request(error.errors()))
            except ServiceError as error:
                return _refuse(error)

        return handle


def chat_completions_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1", tags=["chat completions"], route_class=OpenAiRoute)

    @router.get("/models")
    async def list_models(service: OpenService) -> dict[str, Any]:
        """List the agents as models; coordinator finds the agent for each message."""
        return {"object": "list", "data": [_describe_model(name) for name in _list_names(service)]}

    @router.get("/models/{model}")
    async def get_model(model: str, service: OpenService) -> dict[str, Any]:
        """Return one agent as a model."""
        _check_model(service, model)
        return _describe_model(model)

    @router.post(
        "/chat/completions",
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def complete_chat(
        chat: ChatRequest,
        request: Request,
        service: OpenService,
        requester: Requester,
        *,
        contact_id: Annotated[
            str,
            Header(
                alias=CONTACT_HEADER,
                max_length=200,
                description="The CRM contact who writes; none: nobody of the CRM",
            ),
        ] = "",
        session_id: Annotated[str, Header(alias=SESSION_HEADER, description="Session to continue")] = "",
        chat_id: Annotated[
            str, Header(alias="X-OpenWebUI-Chat-Id", max_length=200, description="Open WebUI's conversation")
        ] = "",
    ) -> Response:
        """Answer a conversation's last message, whole or as a stream."""
        _check_model(service, chat.model)
        if not session_id:
            owner = f"{requester.tenant}\n{requester.user}\n{contact_id}\n{chat_id}"
            session_id = str(uuid5(_CHATS, owner)) if chat_id else new_thread_id()
        message = await _build_message(chat, service, requester, contact_id, check_thread_id(session_id))
        usage = UsageCounter()
        run = await prepare_message(
            message, service, requester, is_streamed=chat.stream, on_start=partial(_start_counting, usage)
        )
        answer = (_stream if chat.stream else _answer)(chat, run, service, usage)
        response = await answer_until_disconnect(request, answer)
        response.headers[THREAD_HEADER] = run.session_id
        return response

    return router


async def _build_message(
    chat: ChatRequest, service: Service, identity: Identity, contact_id: str, session_id: str
) -> MessageRequest:
    """Return a conversation's last message, with those before it where the session does not hold them.

    Raises:
        InvalidRequest: The last message is not the user's, or has no text.
    """
    spoken = [each for each in chat.messages if each.role in {"user", "assistant"} and each.text.strip()]
    last = chat.messages[-1]
    if last.role != "user" or not last.text.strip():
        raise InvalidRequest("messages: the last one must be the user's, with a text to answer")
    is_new = await service.sessions.get(identity.tenant, session_id) is None
    return MessageRequest(
        contact_id=contact_id or f"{CHAT_CONTACT}{session_id}"[:200],
        message=last.text,
        session_id=session_id,
        agent="" if chat.model == SESSION_GRAPH.name else chat.model,
        history=[
            EarlierMessage(role="customer" if each.role == "user" else "agent", text=each.text)
            for each in spoken[-_MAX_HISTORY - 1 : -1]
        ]
        if is_new
        else [],
    )


async def _answer(chat: ChatRequest, run: MessageRun, service: Service, usage: UsageCounter) -> Response:
    answer, request = await answer_message(run, service)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": get_text(answer)},
        "finish_reason": "stop",
        "logprobs": None,
    }
    content = _build_completion(chat, request.run_id, "chat.completion", [choice], usage=usage.to_dict())
    return JSONResponse(content, headers={RUN_HEADER: request.run_id})


async def _stream(chat: ChatRequest, run: MessageRun, service: Service, usage: UsageCounter) -> Response:
    build = partial(_build_completion, chat, run.session.run_id, "chat.completion.chunk")

    async def list_chunks() -> AsyncGenerator[bytes, None]:
        async for text in _list_texts(run, service):
            yield _format(build([_build_delta({"role": "assistant", "content": text})]))
        yield _format(build([_build_delta({}, finish_reason="stop")]))
        if chat.stream_options and chat.stream_options.include_usage:
            yield _format(build([], usage=usage.to_dict()))
        yield b"data: [DONE]\r\n\r\n"

    events = await sse.wait_for_first(list_chunks(), _to_error_event)
    return sse.stream_response(events, _to_error_event, thread_id=run.session_id, run_id=run.session.run_id)


async def _list_texts(run: MessageRun, service: Service) -> AsyncGenerator[str, None]:
    """Yield the text of an answer as it is made, the empty one first, when the run is admitted."""
    if run.journey and (answer := await advance_journey(run, service)):
        yield get_text(answer)
        return
    events, result, shown = RunEvents(), RunResult(), ""
    async with service.runs.stream(run.session) as parts:
        yield ""
        async for part in parts:
            result.take(part)
            for name, data in events.convert(part):
                if name == "token":
                    shown += data["text"]
                    yield data["text"]
                elif name == "reset":
                    shown = ""
                    yield _WITHDRAWN
    answer = build_response(result, service)
    if any(name == "reset" for name, _ in events.finish(answer["response"])):
        shown = ""
        yield _WITHDRAWN
    if not shown:
        yield get_text(answer)


async def _start_counting(usage: UsageCounter) -> BaseCallbackManager:
    return AsyncCallbackManager([], inheritable_handlers=[usage])


def _build_completion(
    chat: ChatRequest, run_id: str, kind: str, choices: list[Any], *, usage: dict[str, int] | None = None
) -> Chunk:
    return {
        "id": f"chatcmpl-{run_id}",
        "object": kind,
        "created": int(time.time()),
        "model": chat.model,
        "choices": choices,
        **({"usage": usage} if usage else {}),
    }


def _build_delta(delta: dict[str, str], *, finish_reason: str | None = None) -> Chunk:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _format(chunk: Chunk) -> bytes:
    return b"data: %b\r\n\r\n" % orjson.dumps(chunk)


def _to_error_event(error: ServiceError) -> bytes:
    return _format(_describe_error(error))


def _refuse(error: ServiceError) -> Response:
    answer = error_response(error)
    return JSONResponse(
        _describe_error(error),
        error.status,
        headers={name: value for name, value in answer.headers.items() if name == "retry-after"},
    )


def _describe_error(error: ServiceError) -> Chunk:
    default = "invalid_request_error" if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    kind = _ERROR_TYPES.get(HTTPStatus(error.status), default)
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}


def _list_names(service: Service) -> list[str]:
    return [SESSION_GRAPH.name, *service.agents.specs]


def _check_model(service: Service, model: str) -> None:
    if model not in _list_names(service):
        raise NotFound(f"model: there is no agent {model[:100]!r}; GET /v1/models lists them")


def _describe_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ventros-agents"}
