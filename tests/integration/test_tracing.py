"""What a collector is sent of a run."""

import pytest
from langchain_core.messages import AIMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import SecretStr

from core.settings import TracingSettings
from tests.support.collector import Collector, attributes, otlp_collector
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, running_service

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET_WORDS = "My card number is 4111"
PROCEED = '{"success": true, "reasoning": "", "task_complete": false, "suggested_next_action": "answer"}'
USAGE = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}


@pytest.fixture(scope="module")
async def collector(shared_database_url: str) -> Collector:
    """What it has after one run that used a tool, one that failed, and a service that stopped."""
    model = ScriptedChatModel()
    with otlp_collector() as found:
        tracing = TracingSettings(
            exporter_otlp_endpoint=found.url,
            exporter_otlp_headers=SecretStr("Authorization=Bearer%20key, x-team = crm"),
        )
        async with running_service(shared_database_url, scripted_models(model), tracing=tracing) as running:
            search = ("search_knowledge_base", {"query": SECRET_WORDS})
            answer = AIMessage(f"Noted: {SECRET_WORDS}", usage_metadata=USAGE)
            model.replies = [calling("I look.", search), PROCEED, answer]
            body = {
                "input": {"task": SECRET_WORDS, "contact_id": CONTACT},
                "config": {"configurable": {"thread_id": "traced"}},
            }
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            response = await running.http.post("/react/invoke", json=body, headers=headers)
            assert response.status_code == 200, response.text
            model.replies = [ConnectionError("away")] * 3
            failing = {"input": {"prompt": "Write.", "contact_id": CONTACT}}
            assert (await running.http.post("/critique_refine/invoke", json=failing)).status_code == 503
    return found


def of_run(collector: Collector) -> list[Span]:
    return [span for span in collector.spans if span.trace_id.hex() == TRACE]


def parents(collector: Collector, span: Span) -> list[str]:
    by_id = {each.span_id: each for each in collector.spans}
    found = []
    while parent := by_id.get(span.parent_span_id):
        found.append(parent.name)
        span = parent
    return found


async def test_a_run_is_a_tree_of_spans_in_the_callers_trace(collector: Collector) -> None:
    request = collector.named("POST /react/invoke")
    assert request.parent_span_id.hex() == CALLER
    assert request.kind == Span.SPAN_KIND_SERVER
    assert attributes(request)["http.response.status_code"] == 200
    assert attributes(request)["http.route"] == "/react/invoke"

    run = collector.named("invoke_agent react")
    assert parents(collector, run) == ["POST /react/invoke"]
    assert attributes(run)["gen_ai.operation.name"] == "invoke_agent"
    assert attributes(run)["gen_ai.conversation.id"] == "traced"
    assert len(str(attributes(run)["ventros.prompts"])) == 12
    assert attributes(run)["ventros.run.outcome"] == "finished"

    nodes = [span.name for span in of_run(collector) if span.name.startswith("node ")]
    steps = ("prepare", "assemble", "think", "act", "reflect", "think")
    assert nodes == [f"node {step}" for step in steps]

    tool = collector.named("execute_tool search_knowledge_base")
    assert parents(collector, tool) == ["node act", "invoke_agent react", "POST /react/invoke"]
    assert attributes(tool)["gen_ai.tool.name"] == "search_knowledge_base"


async def test_spans_of_model_calls_have_model_provider_and_tokens(collector: Collector) -> None:
    calls = [span for span in of_run(collector) if span.name.startswith("chat ")]
    assert len(calls) == 3
    assert all(parents(collector, call)[1:] == ["invoke_agent react", "POST /react/invoke"] for call in calls)
    last = attributes(calls[-1])
    assert calls[-1].kind == Span.SPAN_KIND_CLIENT
    assert last["gen_ai.operation.name"] == "chat"
    assert {"gen_ai.request.model", "gen_ai.provider.name"} <= last.keys()
    assert (last["gen_ai.usage.input_tokens"], last["gen_ai.usage.output_tokens"]) == (11, 5)
    assert last["gen_ai.response.finish_reasons"] == ["stop"]


async def test_texts_of_people_and_models_are_not_exported(collector: Collector) -> None:
    sent = b"".join(span.SerializeToString() for span in collector.spans)
    assert SECRET_WORDS.encode() not in sent
    assert b"Noted" not in sent
    assert CONTACT.encode() not in sent


async def test_a_failed_run_has_its_error_code_and_a_trace_of_its_own(collector: Collector) -> None:
    run = collector.named("invoke_agent critique_refine")
    assert run.trace_id.hex() != TRACE
    assert run.status.code == Status.STATUS_CODE_ERROR
    assert attributes(run)["error.type"] == "model_unavailable"
    of_it = [span for span in collector.spans if span.trace_id == run.trace_id]
    failed = [span for span in of_it if span.name.startswith("chat ")]
    assert [attributes(span)["error.type"] for span in failed] == ["ConnectionError"] * 3


async def test_spans_name_the_service_and_carry_the_headers(collector: Collector) -> None:
    assert collector.resources[0]["service.name"] == "ventros-agents"
    assert collector.headers[0]["authorization"] == "Bearer key"
    assert collector.headers[0]["x-team"] == "crm"
