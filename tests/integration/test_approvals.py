"""What a person who approves notices, and what the run does with their decision."""

import asyncio
import json
from typing import Any

from langchain_core.messages import AIMessage

from nodes.react.state import Reflection
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

EXPORT = "Exporting my contacts ends with Error 500."
INPUT = {"task": "Make it right.", "contact_id": CONTACT}
REFUND = "We will refund the last invoice."
CRITICAL = {"title": "Exports fail", "description": "Error 500.", "severity": "critical"}
REPORT = ("create_engineering_ticket", CRITICAL)
SEND = ("send_solution_to_customer", {"solution": REFUND})
TICKET = (
    "create_engineering_ticket",
    {"title": "Data lost", "description": "All contacts are gone.", "severity": "critical"},
)
DONE = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="I told them.")
MORE = Reflection(success=False, reasoning="Refused.", task_complete=False, suggested_next_action="explain")
APPROVE = {"decision": "approve"}


async def begin(running: RunningService, thread_id: str = "waiting") -> dict[str, Any]:
    config = {"configurable": {"thread_id": thread_id}}
    response = await running.http.post("/react/invoke", json={"input": INPUT, "config": config})
    assert response.status_code == 200, response.text
    output: dict[str, Any] = response.json()["output"]
    return output


async def approvals(running: RunningService) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await running.http.get("/v1/approvals")).json()["approvals"]
    return found


async def sent(running: RunningService) -> list[str]:
    held = (await running.crm(f"/messages?contact_id={CONTACT}"))["messages"]
    return [message["text"] for message in held if message["source"] == "ventros-agents"]


async def test_a_risky_message_waits_and_is_sent_once_it_is_approved(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I refund.", SEND), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        output = await begin(running)
        [asked] = output["interrupts"]
        assert asked["value"] == {
            "type": "tool_approval",
            "tool": SEND[0],
            "arguments": SEND[1],
            "reason": "the risk of this message to a customer is high",
            "contact_id": CONTACT,
        }
        assert output["success"] is False
        assert await sent(running) == []

        [approval] = await approvals(running)
        assert (approval["thread_id"], approval["graph"]) == ("waiting", "react")
        assert approval["value"] == asked["value"]
        decided = await running.http.post(f"/v1/approvals/{approval['id']}", json=APPROVE)
        assert decided.status_code == 200
        assert decided.json()["output"]["final_answer"] == "I told them."
        assert decided.json()["output"]["interrupts"] == []
        assert await sent(running) == [REFUND]

        assert await approvals(running) == []
        again = await running.http.post(f"/v1/approvals/{approval['id']}", json=APPROVE)
        assert (again.status_code, again.json()["error"]) == (409, "nothing_to_resume")
        assert await sent(running) == [REFUND]


async def test_pending_questions_are_paged_longest_waiting_first(database_url: str) -> None:
    model = ScriptedChatModel(replies=[*(calling("I refund.", SEND) for _ in range(3)), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        for thread_id in ("first", "second", "third"):
            await begin(running, thread_id)

        async def list_threads() -> list[str]:
            threads: list[str] = []
            after: str | None = ""
            while after is not None:
                params: dict[str, str | int] = {"limit": 1, "after": after}
                page = (await running.http.get("/v1/approvals", params=params)).json()
                threads += [approval["thread_id"] for approval in page["approvals"]]
                after = page["next"]
            return threads

        assert await list_threads() == ["first", "second", "third"]
        [approval] = [one for one in await approvals(running) if one["thread_id"] == "second"]
        assert (await running.http.post(f"/v1/approvals/{approval['id']}", json=APPROVE)).status_code == 200
        assert await list_threads() == ["first", "third"]
        # Nothing but what waits is looked at, however many questions were answered before.
        async with running.service.pool.connection() as connection:
            rows = await connection.execute("SELECT thread_id FROM waiting_threads ORDER BY checkpoint_id")
            assert [row["thread_id"] for row in await rows.fetchall()] == ["first", "third"]


async def test_edited_arguments_are_what_is_sent(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I refund.", SEND), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        await begin(running)
        [approval] = await approvals(running)
        edit = {"decision": "edit", "arguments": {"solution": "We look into it."}}
        assert (await running.http.post(f"/v1/approvals/{approval['id']}", json=edit)).status_code == 200
        assert await sent(running) == ["We look into it."]


async def test_the_model_sees_a_rejection_with_its_reason(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I refund.", SEND), MORE, AIMessage("No refund, then.")])
    async with running_service(database_url, scripted_models(model)) as running:
        await begin(running)
        [approval] = await approvals(running)
        reject = {"decision": "reject", "reason": "No refunds after 30 days."}
        decided = await running.http.post(f"/v1/approvals/{approval['id']}", json=reject)
        output = decided.json()["output"]
        assert output["trace"][0]["observation"]["error"]["kind"] == "rejected"
        assert "No refunds after 30 days." in "\n".join(message.text for message in model.prompts[-1])
        assert await sent(running) == []


async def test_an_invalid_decision_is_a_422_and_nothing_changes(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I report it.", TICKET), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        await begin(running)
        [approval] = await approvals(running)
        for decision, field in (
            ({"decision": "perhaps"}, "decision"),
            ({"decision": "edit"}, "edit needs the arguments"),
            ({"decision": "reject"}, "reject needs a reason"),
            ({"decision": "edit", "arguments": {"title": "x"}}, "arguments.description"),
            ({"decision": "approve", "more": 1}, "more"),
            ("yes", "answer: it must be a JSON object"),
            (None, ""),
        ):
            refused = await running.http.post(f"/v1/approvals/{approval['id']}", json=decision)
            assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request"), decision
            assert field.lower() in refused.json()["message"].lower()
            if decision is None:
                # It is no answer: the body is missing.
                continue
            [expected] = refused.json()["details"]["expected"]
            assert approval["id"].startswith(expected["id"])
            assert expected["response_schema"] == approval["response_schema"]
            assert json.dumps(expected["example"]) in refused.json()["message"]
        assert await approvals(running) == [approval]
        assert (await running.http.post(f"/v1/approvals/{approval['id']}", json=APPROVE)).status_code == 200
        tickets = (await running.crm(f"/engineering-tickets?contact_id={CONTACT}"))["engineering_tickets"]
        assert [ticket["title"] for ticket in tickets] == ["Data lost"]


async def test_calls_of_one_thought_are_decided_one_by_one(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I do both.", SEND, TICKET), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        output = await begin(running)
        assert len(output["interrupts"]) == 2
        first, second = await approvals(running)
        half = await running.http.post(f"/v1/approvals/{first['id']}", json=APPROVE)
        assert [pending["id"] for pending in half.json()["output"]["interrupts"]] == [
            second["id"].split(".")[0]
        ]
        assert [found["id"] for found in await approvals(running)] == [second["id"]]
        again = await running.http.post(f"/v1/approvals/{first['id']}", json=APPROVE)
        assert again.status_code == 409
        whole = await running.http.post(f"/v1/approvals/{second['id']}", json=APPROVE)
        assert whole.json()["output"]["success"] is True
        assert await sent(running) == [REFUND]


async def test_two_people_who_decide_at_once_decide_once(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I refund.", SEND), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        await begin(running)
        [approval] = await approvals(running)
        path = f"/v1/approvals/{approval['id']}"
        answers = await asyncio.gather(*(running.http.post(path, json=APPROVE) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
        assert await sent(running) == [REFUND]


async def test_a_new_message_does_not_discard_a_pending_question(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I report it.", REPORT), AIMessage("Begun anew.")])
    async with running_service(database_url, scripted_models(model)) as running:
        body = {"contact_id": CONTACT, "message": EXPORT, "session_id": "waiting"}
        asked = (await running.http.post("/v1/messages", json=body)).json()
        assert len(asked["interrupts"]) == 1
        refused = await running.http.post("/v1/messages", json=body)
        assert (refused.status_code, refused.json()["error"]) == (409, "interrupt_pending")
        assert len(await approvals(running)) == 1
        anew = await running.http.post("/v1/messages", json={**body, "multitask_strategy": "interrupt"})
        assert anew.json()["response"] == "Begun anew."
        assert await approvals(running) == []


async def test_langserve_answers_an_interrupt_and_refuses_what_it_cannot_resume(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I refund.", SEND), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        await begin(running)
        config = {"configurable": {"thread_id": "waiting"}}
        wrong = await running.http.post(
            "/react/invoke", json={"input": {"resume": {"decision": "x"}}, "config": config}
        )
        assert (wrong.status_code, wrong.json()["error"]) == (422, "invalid_request")
        on = await running.http.post("/react/invoke", json={"input": {"resume": None}, "config": config})
        assert (on.status_code, on.json()["error"]) == (409, "interrupt_pending")
        output = await running.react.ainvoke({"resume": APPROVE}, {"configurable": {"thread_id": "waiting"}})
        assert output["final_answer"] == "I told them."
        for resume in (APPROVE, None):
            nowhere = await running.http.post("/react/invoke", json={"input": {"resume": resume}})
            assert (nowhere.status_code, nowhere.json()["error"]) == (409, "nothing_to_resume")
            assert "config.configurable.thread_id" in nowhere.json()["message"]
            late = await running.http.post(
                "/react/invoke", json={"input": {"resume": resume}, "config": config}
            )
            assert (late.status_code, late.json()["error"]) == (409, "nothing_to_resume")


async def test_a_failed_run_is_continued_from_its_last_checkpoint(database_url: str) -> None:
    search = ("search_knowledge_base", {"query": "export"})
    replies = [calling("I look.", search), MORE, RuntimeError("a bug"), AIMessage("Found it.")]
    model = ScriptedChatModel(replies=replies)
    async with running_service(database_url, scripted_models(model)) as running:
        config = {"configurable": {"thread_id": "failed"}}
        failed = await running.http.post("/react/invoke", json={"input": INPUT, "config": config})
        assert failed.status_code == 500
        on = await running.http.post("/react/invoke", json={"input": {"resume": None}, "config": config})
        output = on.json()["output"]
        assert output["final_answer"] == "Found it."
        assert [entry["thought"] for entry in output["trace"]] == ["I look.", "Found it."]


async def test_a_stream_has_an_event_for_the_question(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I report it.", REPORT)])
    async with running_service(database_url, scripted_models(model)) as running:
        body = {"contact_id": CONTACT, "message": EXPORT}
        streamed = await running.http.post("/v1/messages", json=body, headers={"Accept": "text/event-stream"})
        names = [line.split()[1] for line in streamed.text.splitlines() if line.startswith("event:")]
        assert list(dict.fromkeys(names)) == ["start", "agent", "thought", "interrupt", "done"]


async def test_unknown_approvals_are_404(database_url: str) -> None:
    async with running_service(database_url, scripted_models(ScriptedChatModel())) as running:
        for name in ("nothing", f"{'0' * 32}.no-such-thread", "a.b"):
            unknown = await running.http.post(f"/v1/approvals/{name}", json=APPROVE)
            assert (unknown.status_code, unknown.json()["error"]) == (404, "not_found")
            message = f"there is no approval {name!r}; GET /v1/approvals lists what waits, with ids"
            assert unknown.json()["message"] == message
        assert await approvals(running) == []


async def test_a_thread_of_another_graph_is_refused(database_url: str) -> None:
    model = ScriptedChatModel(replies=[AIMessage("One."), AIMessage("Two.")])
    async with running_service(database_url, scripted_models(model)) as running:
        await begin(running)
        graph = running.service.graphs["react"]
        config: Any = {"configurable": {"thread_id": "waiting"}, "metadata": {"graph": "other"}}
        await graph.aupdate_state(config, {"success": True})
        body = {"input": INPUT, "config": {"configurable": {"thread_id": "waiting"}}}
        refused = await running.http.post("/react/invoke", json=body)
        assert (refused.status_code, refused.json()["error"]) == (409, "wrong_graph")
