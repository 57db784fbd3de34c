"""A compiled graph as the Runnable that LangServe serves.

LangServe reads its schemas from a Runnable's types and ``config_specs``. A LangGraph graph lists nothing
there, so ``thread_id`` would be dropped. This Runnable declares it, and runs the graph through
:class:`service.runs.executor.RunExecutor`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, TypeAlias

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

from core.errors import ServiceError
from graphs.spec import GraphSpec
from service.audit.idempotency import KeyClaim
from service.errors import error_body, to_service_error
from service.lifespan import Service
from service.runs.inputs import build_graph_input, build_served_input_schema
from service.runs.output import RunResult, build_served_output_schema
from service.runs.preconditions import check_new_thread
from service.runs.request import MultitaskStrategy, OnStart, RunRequest, build_run_request, new_thread_id

# Where the route puts the caller, the service, whether it made the thread, the claimed idempotency key and
# the run's id, and what collects the errors of a batch that answers all the same; not among the fields that a
# body may set.
IDENTITY_KEY = "__identity"
SERVICE_KEY = "__service"
FRESH_KEY = "__fresh"
CLAIMED_KEY = "__claimed"
RUN_ID_KEY = "__run_id"
FAILED_KEY = "__failed"
# Inputs of one batch that run at once.
BATCH_CONCURRENCY = 8

Values: TypeAlias = dict[str, Any]


class _Text(str):
    """A text that accepts null as the empty one, so that forms drawn from the schema have no null fields.

    It is a class because LangServe copies the types of fields without their annotations.
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(lambda value: "" if value is None else value, str_schema())


class ServedGraph(Runnable[Values, Values]):
    """One graph of the registry.

    ``ainvoke`` returns the output with ``thread_id`` and ``metadata``. ``astream`` yields ``{node: update}``
    after each step and finally ``{"output": ...}``.

    Args:
        spec: The graph's entry.
        unread: Type of the callers' callback handlers that nobody reads, and that are left out.
    """

    config_fields: ClassVar[list[ConfigurableFieldSpec]] = [
        ConfigurableFieldSpec(
            id="thread_id",
            annotation=_Text,
            name="Thread id",
            description="Thread to continue; none: a new one, whose id is in the output and in X-Thread-Id",
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
        """The fields of ``configurable``."""
        return self.config_fields

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:  # noqa: ARG002
        """Return the graph's input schema, which accepts ``{"resume": ...}`` in its place."""
        return self._input_schema

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:  # noqa: ARG002
        """Return the graph's output schema with the fields that HTTP adds."""
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
        """Run to the end and return the output."""
        output: Values = {}
        async for chunk in self.astream(input, config, **kwargs):
            output = chunk.get("output", output)
        return output

    async def abatch(
        self,
        inputs: list[Values],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,  # noqa: ARG002 - LangServe never passes it
        **kwargs: Any,
    ) -> list[Values]:
        """Run each input on its own thread, a few at once so that one batch does not take every slot.

        The first failure ends the batch: no further input begins, and the runs in progress stop at their next
        step. LangChain's own version answers and lets all of them run on. With ``return_exceptions`` in the
        request, the errors are collected by the number of their input, and the others' outputs are returned.
        """
        configs = config if isinstance(config, list) else [ensure_config(config)] * len(inputs)
        slots = asyncio.Semaphore(BATCH_CONCURRENCY)

        async def run(number: int, value: Values, one: RunnableConfig) -> Values | None:
            failed: dict[int, Values] | None = one.get("configurable", {}).get(FAILED_KEY)
            async with slots:
                try:
                    return await self.ainvoke(value, one, **kwargs)
                except ServiceError as error:
                    if failed is None:
                        raise
                    failed[number] = {**error_body(error), "status": error.status}
                    return None

        try:
            async with asyncio.TaskGroup() as group:
                runs = [
                    group.create_task(run(number, *each))
                    for number, each in enumerate(zip(inputs, configs, strict=True))
                ]
        except* ServiceError as failures:
            failure = failures.exceptions[0]
        else:
            return [output for run in runs if (output := run.result()) is not None]
        raise failure

    async def astream_log(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - LangChain's name
        """Yield patches of the run's log, which LangServe's client for Python can read.

        It takes any object of the type "tool" for a tool's message, and fails where there is no id of a call.
        """
        async for patch in super().astream_log(input, config, **kwargs):
            for operation in patch.ops:
                entry = operation.get("value")
                if isinstance(entry, dict) and entry.get("type") == "tool":
                    entry["tool_call_id"] = None
            yield patch

    async def astream(
        self,
        input: Values,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> AsyncIterator[Values]:
        """Run and yield the updates of each step, then the output."""
        config = ensure_config(config)
        service: Service = config.get("configurable", {})[SERVICE_KEY]
        root = _RootRun(config, input, self._spec.name, self._unread)
        request = self._build_request(service, input, config, root.report_start)
        result = RunResult()
        try:
            async with service.runs.stream(request) as parts:
                async for part in parts:
                    result.take(part)
                    if part["type"] == "updates":
                        yield AddableDict(part["data"])
            output = result.to_output(request.thread_id, service.model)
            yield AddableDict(output=output)
        except Exception as error:
            await root.report_error(error)
            raise to_service_error(error) from error
        else:
            await root.report_end(output)

    def _build_request(
        self, service: Service, values: Values, config: RunnableConfig, on_start: OnStart
    ) -> RunRequest:
        configurable = config.get("configurable", {})
        identity, graph_input = configurable[IDENTITY_KEY], build_graph_input(self._spec, values)
        claimed: KeyClaim | None = configurable.get(CLAIMED_KEY)
        is_repeated = claimed is not None and claimed.repeated
        key = f"request:{claimed.id}" if claimed else ""
        # A session is its thread.
        named = configurable.get("thread_id") or values.get("session_id")
        fresh = configurable.get(FRESH_KEY, not named) and not is_repeated
        if fresh:
            check_new_thread(graph_input)
        thread_id = named or new_thread_id()
        hooks = service.hooks.build(
            self._spec, identity, graph_input, thread_id=thread_id, key=key, on_start=on_start
        )
        return build_run_request(
            service.graphs[self._spec.name],
            self._spec,
            graph_input,
            identity=identity,
            thread_id=thread_id,
            fresh=fresh,
            locale=configurable.get("locale") or None,
            metadata=config.get("metadata", {}),
            tags=config.get("tags", []),
            multitask_strategy=configurable.get("multitask_strategy") or "enqueue",
            on_start=hooks.on_start,
            on_finish=hooks.on_finish,
            key=key,
            repeated=is_repeated,
            run_id=configurable.get(RUN_ID_KEY, ""),
        )


class _RootRun:
    """The run as LangChain's callbacks see it: its input and, at its end, what HTTP answers.

    Args:
        config: With the caller's callbacks, run name and run id.
        values: The run's input.
        name: The run's name where the config has none.
        unread: Type of the callback handlers to leave out.
    """

    def __init__(
        self,
        config: RunnableConfig,
        values: Values,
        name: str,
        unread: type[BaseCallbackHandler] | tuple[()],
    ) -> None:
        self._unread = unread
        self._config = config
        self._values = values
        self._name = config.get("run_name") or name
        self._run: AsyncCallbackManagerForChainRun | None = None

    async def report_start(self) -> BaseCallbackManager:
        """Report the start of the admitted run, and return the callbacks for the graph below it."""
        callbacks = get_async_callback_manager_for_config(self._config)
        for handler in callbacks.handlers.copy():
            if isinstance(handler, self._unread):
                callbacks.remove_handler(handler)
        self._run = await callbacks.on_chain_start(
            None, self._values, name=self._name, run_id=self._config.get("run_id")
        )
        return self._run.get_child()

    async def report_end(self, output: Values) -> None:
        """Report the output."""
        if self._run:
            await self._run.on_chain_end(output)

    async def report_error(self, error: Exception) -> None:
        """Report the failure, unless the run was never admitted."""
        if self._run:
            await self._run.on_chain_error(error)
