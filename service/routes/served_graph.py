"""A compiled graph as the Runnable that LangServe serves.

LangServe takes its schemas from a Runnable's types and ``config_specs``, in which a LangGraph graph lists
nothing: ``thread_id`` would be dropped. This Runnable declares them, and runs the graph through
:class:`service.runs.executor.RunExecutor`.
"""

from collections.abc import AsyncIterator
from typing import Any, ClassVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    BaseCallbackHandler,
    BaseCallbackManager,
)
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import get_async_callback_manager_for_config
from langchain_core.runnables.utils import AddableDict, ConfigurableFieldSpec
from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function, str_schema

from graphs.spec import GraphSpec
from service.audit.idempotency import KeyClaim
from service.errors import to_service_error
from service.lifespan import Service
from service.runs.output import RunResult, build_served_output_schema
from service.runs.request import (
    MultitaskStrategy,
    RunRequest,
    build_graph_input,
    build_run_request,
    build_served_input_schema,
    new_thread_id,
)
from service.runs.sessions import GRAPH, Begin, begin_in_session

# Where the route puts who asks, and the service; not among the fields a body may set.
IDENTITY_KEY = "__identity"
SERVICE_KEY = "__service"
# Where it says that it has made the thread.
FRESH_KEY = "__fresh"
# Where it says which request of those with keys this is.
CLAIMED_KEY = "__claimed"
# Inputs of one batch that run at once.
BATCH_CONCURRENCY = 8

Values = dict[str, Any]


class _Text(str):
    """A text, none being the empty one: the playground cannot draw a field that may be null.

    A class of its own, as LangServe copies the types of fields without their annotations.
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(lambda value: "" if value is None else value, str_schema())


class ServedGraph(Runnable[Values, Values]):
    """One graph of the registry.

    ``ainvoke`` gives the output with ``thread_id`` and ``metadata``. ``astream`` gives ``{node: update}``
    after each step and at last ``{"output": ...}``.

    Args:
        spec: The graph's entry.
        unread: Callback handlers of its callers that nobody reads: they are not told of each token.
    """

    config_fields: ClassVar[list[ConfigurableFieldSpec]] = [
        ConfigurableFieldSpec(
            id="thread_id",
            annotation=_Text,
            name="Thread id",
            description="Thread to go on with; none: a new one, whose id is in the output and in X-Thread-Id",
            default="",
            is_shared=True,
        ),
        ConfigurableFieldSpec(
            id="multitask_strategy",
            annotation=MultitaskStrategy,
            name="When the thread is busy",
            description="enqueue: wait; reject: answer 409; interrupt: stop the other run at its next step",
            default="enqueue",
            is_shared=True,
        ),
        ConfigurableFieldSpec(
            id="locale",
            annotation=_Text,
            name="Locale",
            description="BCP 47 tag of the language to answer in; none: the language of the message",
            default="",
            is_shared=True,
        ),
    ]

    def __init__(self, spec: GraphSpec, *, unread: type[BaseCallbackHandler] | tuple[()] = ()) -> None:
        self._unread = unread
        self.name = spec.name
        self._spec = spec
        self._input_schema = build_served_input_schema(spec)
        self._output_schema = build_served_output_schema(spec)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What ``configurable`` may hold."""
        return self.config_fields

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:  # noqa: ARG002
        """The graph's input schema; ``{"resume": ...}`` is taken in its place."""
        return self._input_schema

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:  # noqa: ARG002
        """The graph's output schema with what HTTP adds."""
        return self._output_schema

    def invoke(self, input: Values, config: RunnableConfig | None = None, **kwargs: Any) -> Values:  # noqa: A002
        """Refuse: the service is asynchronous."""
        raise NotImplementedError("served graphs are asynchronous; await ainvoke instead")

    async def ainvoke(
        self,
        input: Values,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Values:
        """Run to the end and give the output."""
        output: Values = {}
        async for chunk in self.astream(input, config, **kwargs):
            output = chunk.get("output", output)
        return output

    async def abatch(
        self,
        inputs: list[Values],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Values]:
        """Run each input on its own thread, a few at once so that one batch does not take every slot."""
        configs = config if isinstance(config, list) else [ensure_config(config)] * len(inputs)
        bounded: list[RunnableConfig] = [{**one, "max_concurrency": BATCH_CONCURRENCY} for one in configs]
        return await super().abatch(inputs, bounded, return_exceptions=return_exceptions, **kwargs)

    async def astream(
        self,
        input: Values,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> AsyncIterator[Values]:
        """Run and give each step's updates, then the output."""
        config = ensure_config(config)
        service: Service = config.get("configurable", {})[SERVICE_KEY]
        root = _RootRun(config, input, self._spec.name, self._unread)
        request = self._request(service, input, config, root)
        result = RunResult()
        parts = service.runs.stream(request)
        try:
            async for part in parts:
                result.take(part)
                if part["type"] == "updates":
                    yield AddableDict(part["data"])
            output = result.output(request.thread_id, service.model)
            yield AddableDict(output=output)
        except Exception as error:
            await root.failed(error)
            raise to_service_error(error) from error
        else:
            await root.ended(output)
        finally:
            await parts.aclose()

    def _request(
        self, service: Service, values: Values, config: RunnableConfig, root: "_RootRun"
    ) -> RunRequest:
        named = config.get("configurable", {})
        identity, given = named[IDENTITY_KEY], build_graph_input(values)
        claimed: KeyClaim | None = named.get(CLAIMED_KEY)
        # Known before the run, as a session is its thread.
        asked_for = named.get("thread_id") or values.get("session_id")
        thread_id = asked_for or new_thread_id()
        is_fresh = named.get(FRESH_KEY, not asked_for)
        key = f"request:{claimed.id}" if claimed else ""
        begin: Begin = root.begin
        if self._spec is GRAPH:
            begin = begin_in_session(service, identity, given, thread_id=thread_id, key=key, begin=begin)
        return build_run_request(
            service,
            self._spec,
            given,
            identity=identity,
            thread_id=thread_id,
            fresh=is_fresh and not (claimed and claimed.repeated),
            locale=named.get("locale") or None,
            metadata=config.get("metadata", {}),
            tags=config.get("tags", []),
            multitask_strategy=named.get("multitask_strategy") or "enqueue",
            begin=begin,
            key=key,
            repeated=claimed is not None and claimed.repeated,
        )


class _RootRun:
    """The run as LangChain's callbacks see it: what it is given and, at its end, what HTTP answers.

    Args:
        config: With the caller's callbacks, run name and run id.
        given: The run's input.
        name: The run's name where the config has none.
        unread: Handlers nobody asks for what they were told.
    """

    def __init__(
        self,
        config: RunnableConfig,
        given: Values,
        name: str,
        unread: type[BaseCallbackHandler] | tuple[()],
    ) -> None:
        self._unread = unread
        self._config = config
        self._given = given
        self._name = config.get("run_name") or name
        self._run: AsyncCallbackManagerForChainRun | None = None

    async def begin(self) -> BaseCallbackManager:
        """Report the start; the graph reports below it."""
        callbacks = get_async_callback_manager_for_config(self._config)
        for handler in callbacks.handlers.copy():
            if isinstance(handler, self._unread):
                callbacks.remove_handler(handler)
        self._run = await callbacks.on_chain_start(
            None, self._given, name=self._name, run_id=self._config.get("run_id")
        )
        return self._run.get_child()

    async def ended(self, output: Values) -> None:
        """Report the output."""
        if self._run:
            await self._run.on_chain_end(output)

    async def failed(self, error: Exception) -> None:
        """Report the failure; a run that was never admitted has none."""
        if self._run:
            await self._run.on_chain_error(error)
