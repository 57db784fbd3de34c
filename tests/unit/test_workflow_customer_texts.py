"""A definition may send a customer what an agent wrote only if something accepted it."""

from typing import Any

import pytest

from core.errors import InvalidDefinition, StepFailed
from nodes.workflow.executors import build_api_call
from tests.support.workflow_calls import step_call
from workflows.customer_texts import sends_message
from workflows.loader import LIBRARY
from workflows.ports import HttpRequest, HttpResponse
from workflows.steps import ApiCall
from workflows.validation import read_definition

Json = dict[str, Any]
WRITE: Json = {"id": "draft", "type": "agent", "graph": "critique_refine"}
TEXT = "{{ steps.draft.output.output }}"
SEND: Json = {
    "id": "send",
    "type": "api_call",
    "method": "POST",
    "url": "crm:/messages",
    "body": {"contact_id": "{{ input.contact }}", "text": TEXT},
}
ASK: Json = {"id": "ask", "type": "approval", "question": "Send it?", "details": TEXT}


def list_faults(*steps: Json) -> list[Json]:
    inputs: Json = {"contact": {"type": "string"}, "contacts": {"type": "array"}}
    try:
        read_definition({"name": "test", "inputs": inputs, "steps": list(steps)})
    except InvalidDefinition as error:
        faults: list[Json] = error.details["faults"]
        return faults
    return []


def expression(text: str) -> Json:
    return {"type": "expression", "expression": text}


def only_if(condition: str, *steps: Json, step_id: str = "check") -> Json:
    return {"id": step_id, "type": "conditional", "condition": expression(condition), "then": list(steps)}


def send(**fields: Any) -> Json:
    return {**SEND, **fields}


def send_text(text: Any) -> Json:
    return send(body={**SEND["body"], "text": text})


def process(step_id: str, operation: str, source: str, **fields: Any) -> Json:
    return {"id": step_id, "type": "data_processing", "operation": operation, "source": source, **fields}


def for_each(source: str, *steps: Json, step_id: str = "each", **fields: Any) -> Json:
    return {
        "id": step_id,
        "type": "fan_out_fan_in",
        "for_each": source,
        "fan_out_steps": list(steps),
        **fields,
    }


FOR_EACH_DRAFT = for_each("input.contacts", WRITE)


@pytest.mark.parametrize(
    "steps",
    [
        (WRITE, only_if("steps.draft.output.success", SEND)),
        (WRITE, only_if("input.contact != 'x' && steps.draft.output.success == `true`", SEND)),
        (WRITE, send(when=expression("steps.draft.output.success"))),
        (WRITE, ASK, SEND),
        (WRITE, {**ASK, "on_reject": "continue"}, only_if("steps.ask.output.decision == 'approve'", SEND)),
        (WRITE, ASK, for_each("input.contacts", SEND)),
        (FOR_EACH_DRAFT, process("good", "filter", "steps.draft.output", where="item.success"),
         for_each("steps.good.output", send_text("{{ item.output }}"), step_id="sending")),
        (FOR_EACH_DRAFT, for_each(
            "steps.draft.output", only_if("item.success", send_text("{{ item.output }}")), step_id="x")),
        (WRITE, send_text("Hello {{ input.contact }}")),
        (WRITE, send(method="GET", body=None)),
        (WRITE, send(url="crm:/contacts/{{ input.contact }}/follow-ups")),
        (WRITE, send(body={**SEND["body"], "from_me": False})),
        (WRITE, send(url="https://example.com/messages")),
    ],
)  # fmt: skip
def test_an_accepted_text_may_be_sent(steps: tuple[Json, ...]) -> None:
    assert list_faults(*steps) == []


@pytest.mark.parametrize(
    "steps",
    [
        (WRITE, SEND),
        (WRITE, send_text(f"Dear customer, {TEXT}")),
        (WRITE, send(body={"text": "{{ steps.draft }}"})),
        (WRITE, send(body="{{ steps.draft.output }}")),
        (WRITE, send(url="CRM:/%6Dessages/")),
        (WRITE, send(url="crm:/{{ input.contact }}")),
        (WRITE, only_if("steps.draft.output.output", SEND)),
        (WRITE, only_if("!(steps.draft.output.success)", SEND)),
        (WRITE, only_if("steps.draft.output.success == `false`", SEND)),
        (WRITE, only_if("steps.draft.output.success || input.contact", SEND)),
        (WRITE, {**only_if("steps.draft.output.success", ASK), "otherwise": [SEND]}),
        (WRITE, {**WRITE, "id": "other"}, only_if("steps.other.output.success", SEND)),
        (WRITE, {**ASK, "details": "a text"}, SEND),
        (WRITE, {**ASK, "on_reject": "continue"}, SEND),
        (WRITE, {**ASK, "on_error": "skip"}, SEND),
        (WRITE, {**ASK, "when": expression("input.contact")}, SEND),
        (WRITE, only_if("input.contact", ASK), SEND),
        (WRITE, {"id": "p", "type": "parallel", "steps": [ASK, SEND]}),
        (WRITE, process("one", "map", "[steps.draft.output]", to="{{ item.output }}"),
         process("two", "filter", "steps.one.output", where="item"), send_text("{{ steps.two.output[0] }}")),
        (FOR_EACH_DRAFT, send_text("{{ steps.each.output[0].output }}")),
        (FOR_EACH_DRAFT,
         for_each("steps.draft.output", send_text("{{ item.output }}"), step_id="sending")),
        (for_each("input.contacts", WRITE, fan_in_steps=[
            process("all", "map", "steps.each.output", to="{{ item.output }}"),
            send_text("{{ steps.all.output[0] }}")]),),
    ],
)  # fmt: skip
def test_a_text_that_nothing_accepted_is_a_fault(steps: tuple[Json, ...]) -> None:
    [fault] = list_faults(*steps)
    assert fault["step"] == "send"
    assert fault["path"].endswith(("send.body.text", ".body.text", ".body"))
    assert "steps.draft.output.success, or after an approval" in fault["message"]


def test_the_library_sends_accepted_texts_and_without_its_condition_is_refused() -> None:
    definition = LIBRARY["reengage_quiet_customers"].to_json()
    read_definition(definition)
    steps: Any = definition["steps"]
    branch = steps[0]["fan_out_steps"][2]["then"]
    branch[1] = branch[1]["then"][0]
    with pytest.raises(InvalidDefinition) as refused:
        read_definition(definition)
    [fault] = refused.value.details["faults"]
    assert fault["path"] == "steps.0.fan_out_steps.2.then.1.body.text"


class _Crm:
    """Counts what is sent."""

    def __init__(self) -> None:
        self.sent: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.sent.append(request)
        return HttpResponse(status=201, headers={}, body={"id": "1"})


class _Effects:
    async def run_once(self, key: str, action: str, arguments: Any, effect: Any) -> Any:
        return await effect()


@pytest.mark.parametrize("text", ["Set GOOGLE_API_KEY to get answers.", " ", 7, "Dear {name}, hello!"])
async def test_a_text_that_no_customer_may_read_is_not_sent_by_a_workflow(text: Any) -> None:
    crm = _Crm()
    run = build_api_call(crm, _Effects())
    step = ApiCall(
        id="send", type="api_call", method="POST", url="crm:/messages", body={"text": "{{ input.text }}"}
    )
    with pytest.raises(StepFailed, match=r"body\.text") as refused:
        await run(step, step_call(input={"text": text}))
    assert (crm.sent, refused.value.retryable) == ([], False)
    await run(step, step_call(input={"text": "Your order ORD-7001 is on its way."}))
    assert len(crm.sent) == 1


@pytest.mark.parametrize(
    ("method", "url", "body", "sends"),
    [
        ("POST", "crm:/messages", {"text": "Hi"}, True),
        ("POST", "crm://messages/?x=1", None, True),
        ("PUT", "crm:/messages/4", {}, True),
        ("POST", "crm:/messages", {"text": "Hi", "from_me": False}, False),
        ("GET", "crm:/messages", None, False),
        ("POST", "crm:/contacts/messages/notes", {}, False),
    ],
)
def test_messages_of_the_crm_are_told_by_their_address(method: str, url: str, body: Any, sends: bool) -> None:
    assert sends_message(method, url, body) is sends
