"""Workflows on the Postgres saver: which results persist, what resumes, and what never runs twice."""

import asyncio
from typing import Any, cast

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from psycopg.rows import scalar_row

from core.concurrency import FairSemaphore
from core.errors import NotFound, NothingToResume
from core.models import ChatModels
from core.postgres import Pool
from graphs.workflow import SPEC, compile_workflow
from nodes.deps import Deps
from nodes.workflow.recovery import read_records, retry, rollback_to_checkpoint, skip_failed_step
from tests.support.graphs import NO_AGENTS
from tests.support.savers import saver_on
from tests.support.waiting import until
from tests.support.workflows import FakeApi, ask, build_definition, build_engine, call, statuses
from tools.crm.client import CrmClient
from workflows.outline import build_outline
from workflows.progress import compute_progress
from workflows.schema import Definition

THREAD: RunnableConfig = {"configurable": {"thread_id": "w"}}
Graph = CompiledStateGraph[Any, Any, Any, Any]


def for_each(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    many = {"type": "fan_out_fan_in", "id": "each", "for_each": "input.items"}
    return {**many, "fan_out_steps": list(steps), **fields}


def parallel(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "parallel", "id": "both", "steps": list(steps)}


async def compile_on_saver(pool: Pool, workflow: Definition, api: FakeApi, **other: Any) -> Graph:
    return compile_workflow(workflow, build_engine(api, **other), await saver_on(pool))


async def read_statuses(graph: Graph) -> dict[str, str]:
    return statuses(await read_records(graph, THREAD))


async def start(graph: Graph, items: int = 0) -> Any:
    return await graph.ainvoke({"input": {"items": list(range(items))}}, THREAD, durability="sync")


async def test_a_failed_branch_is_named_and_keeps_the_results_of_the_others(pool: Pool) -> None:
    api = FakeApi({"charge"})
    workflow = build_definition(parallel(call("charge"), call("thank"), call("tell")), call("after"))
    graph = await compile_on_saver(pool, workflow, api)

    output = await start(graph)

    assert (output["status"], output["failed"]) == ("failed", ["charge"])
    assert output["error"] == "charge: no charge"
    expected = {"thank": "succeeded", "tell": "succeeded", "charge": "failed", "both": "failed"}
    assert await read_statuses(graph) == expected


async def test_a_retry_runs_failed_and_remaining_steps_only(pool: Pool) -> None:
    api = FakeApi({"second"})
    workflow = build_definition(
        call("before"), for_each(call("first"), call("second"), call("third")), call("after")
    )
    graph = await compile_on_saver(pool, workflow, api)
    await start(graph, items=2)
    api.failing.clear()

    recovery = await retry(graph, THREAD, workflow)
    output = await graph.ainvoke(recovery.input, THREAD)

    assert recovery.steps == ("second[0]", "second[1]")
    assert output["status"] == "succeeded"
    twice = {key for key, calls in api.calls.items() if calls == 2}
    assert twice == {"w:second[0]", "w:second[1]"}, "with the keys of the first try"
    items = {f"w:{step}[{item}]" for step in ("first", "second", "third") for item in (0, 1)}
    assert set(api.calls) == {"w:before", "w:after"} | items


async def test_a_recovery_can_skip_a_failed_step(pool: Pool) -> None:
    api = FakeApi({"second"})
    workflow = build_definition(for_each(call("first"), call("second"), call("third")), call("after"))
    graph = await compile_on_saver(pool, workflow, api)
    await start(graph, items=1)

    output = await graph.ainvoke((await skip_failed_step(graph, THREAD, workflow)).input, THREAD)

    found = await read_records(graph, THREAD)
    assert output["status"] == "succeeded"
    assert (found["second[0]"]["status"], found["second[0]"]["error"]) == ("skipped", "no second")
    assert found["third[0]"]["status"] == "succeeded"
    assert api.calls["w:second[0]"] == 1


async def test_a_rollback_runs_later_steps_again_with_the_same_keys(pool: Pool) -> None:
    api = FakeApi()
    workflow = build_definition(call("first"), call("second"), call("third"))
    graph = await compile_on_saver(pool, workflow, api)
    await start(graph)
    history = [snapshot async for snapshot in graph.aget_state_history(THREAD)]
    earlier = next(snapshot for snapshot in history if snapshot.next == ("second",))
    checkpoint = earlier.config["configurable"]["checkpoint_id"]

    recovery = await rollback_to_checkpoint(graph, THREAD, checkpoint)
    assert await read_statuses(graph) == {"first": "succeeded"}
    output = await graph.ainvoke(recovery.input, THREAD)

    assert output["status"] == "succeeded"
    assert api.calls == {"w:first": 1, "w:second": 2, "w:third": 2}
    with pytest.raises(NotFound):
        await rollback_to_checkpoint(graph, THREAD, "1ef00000-0000-6000-8000-000000000000")
    with pytest.raises(NothingToResume):
        await retry(graph, THREAD, workflow)


async def test_an_open_question_does_not_delay_other_branches(pool: Pool) -> None:
    api = FakeApi()
    asking = {"type": "sequential", "id": "asking", "steps": [call("draft"), ask("may"), call("send")]}
    working = {"type": "sequential", "id": "working", "steps": [call("one"), call("two"), call("three")]}
    workflow = build_definition(parallel(asking, working))
    graph = await compile_on_saver(pool, workflow, api)

    await start(graph)

    state = await graph.aget_state(THREAD)
    assert await read_statuses(graph) == {
        **dict.fromkeys(["draft", "one", "two", "three", "working"], "succeeded"),
        "both": "running",
    }
    answer: Command[Any] = Command(resume={state.interrupts[0].id: {"decision": "approve"}})
    output = await graph.ainvoke(answer, THREAD)
    assert output["status"] == "succeeded"
    assert set(api.calls.values()) == {1}


async def test_an_interrupted_run_resumes_after_its_last_finished_step(pool: Pool) -> None:
    api, blocker = FakeApi(), asyncio.Event()

    async def block_items(one: Any) -> None:
        if one.step_id == "work" and one.context["index"] >= 5:
            await blocker.wait()

    api.before = block_items
    workflow = build_definition(call("before"), for_each(call("work"), max_items=10), call("after"))
    graph = await compile_on_saver(pool, workflow, api, wave=4)
    run = asyncio.create_task(start(graph, items=8))
    await until(lambda: api.calls["w:work[7]"] == 1)
    while (await _count_done(graph, workflow)) < 6:
        pass
    run.cancel()
    await asyncio.wait([run])
    blocker.set()

    output = await graph.ainvoke(None, THREAD)

    assert output["status"] == "succeeded"
    again = {key for key, calls in api.calls.items() if calls == 2}
    assert again == {"w:work[5]", "w:work[6]", "w:work[7]"}


async def _count_done(graph: Graph, workflow: Definition) -> int:
    found = compute_progress(workflow, build_outline(workflow), await read_records(graph, THREAD))
    assert found.total == 10
    return found.done


async def test_the_checkpoints_of_a_loop_grow_linearly_with_its_iterations(pool: Pool) -> None:
    sizes = []
    for turns in (50, 200):
        loop = {"type": "loop", "id": "again", "max_iterations": turns, "steps": [call("step")]}
        graph = await compile_on_saver(pool, build_definition(loop), FakeApi())
        thread = f"turns-{turns}"
        await graph.ainvoke({"input": {}}, {"configurable": {"thread_id": thread}})
        sizes.append(await _bytes(pool, thread))

    assert sizes[1] < 4.5 * sizes[0]


async def _bytes(pool: Pool, thread: str) -> int:
    async with pool.connection() as connection:
        total = 0
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            statement = f"SELECT sum(pg_column_size(kept.*)) FROM {table} AS kept WHERE thread_id = %s"
            async with connection.cursor(row_factory=scalar_row) as cursor:
                await cursor.execute(statement.encode(), (thread,))
                total += int(await cursor.fetchone() or 0)
        return total


async def test_workflows_share_the_concurrency_slots(pool: Pool) -> None:
    slots = FairSemaphore(3)
    most = 0

    async def seen(_: Any) -> None:
        nonlocal most
        most = max(most, slots.active)
        await asyncio.sleep(0)

    api = FakeApi()
    api.before = seen
    graph = await compile_on_saver(pool, build_definition(for_each(call("work"))), api, slots=slots)

    await asyncio.gather(
        *(
            graph.ainvoke({"input": {"items": [1] * 10}}, {"configurable": {"thread_id": f"w{number}"}})
            for number in range(5)
        )
    )

    assert (most, slots.active, slots.waiting) == (3, 0, 0)
    assert len(api.calls) == 50


async def test_the_graph_workflow_can_run_a_definition_twice_on_a_thread(pool: Pool) -> None:
    api = FakeApi()
    deps = Deps(
        models=cast("ChatModels", None),
        tools={},
        crm=cast("CrmClient", None),
        agents=NO_AGENTS,
        workflows=build_engine(api),
    )
    graph = SPEC.build(deps).compile(checkpointer=await saver_on(pool), name=SPEC.name)
    written = {"name": "inline", "steps": [call("before"), parallel(ask("may"), call("after"))]}

    keys = []
    for _ in range(2):
        api.calls.clear()
        await graph.ainvoke({"definition": written}, THREAD)
        state = await graph.aget_state(THREAD)
        answer: Command[Any] = Command(resume={state.interrupts[0].id: {"decision": "approve"}})
        output = await graph.ainvoke(answer, THREAD)
        assert output["status"] == "succeeded"
        assert set(api.calls.values()) == {1}
        keys.append(set(api.calls))

    assert not keys[0] & keys[1], "what the second run does is not what the first did"
