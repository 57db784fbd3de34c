"""Text that may be sent to a customer is marked by one type, which refuses all other text."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from core import errors
from core.customer_text import CustomerText, find_customer_text_fault
from core.errors import ServiceError, TextRefused
from core.offline.words import PHRASES
from graphs.registry import REGISTRY
from nodes.coordinator import decisions
from nodes.onboarding.texts import TEXTS
from nodes.react.outcome import _REASON_TEXTS
from tools.catalogue import crm_tools, memory_tools
from tools.crm.client import CrmClient

FINE = [
    "Your order ORD-7001 (four desk phones) is delayed; it is expected on 13 November.",
    "Invoice INV-2026-1102 over USD 640.00 is open. Ticket TKT-2214 and ENG-1004 are about it.",
    "Error 500 means that the export has more than 40,000 records: use batches of 10,000.",
    "Call the API with `contact_id` in the body; a field such as `{{first_name}}` is filled in later.",
    "Configurações > Cobrança > Faturas. O arquivo é um CSV em UTF-8 com no máximo 20% de colunas vazias.",
    "Send the header Retry-After and read https://docs.example.com/a?x=%20; the answer is 429 Not Found.",
    "Use <b>bold</b> sparingly, and [Review](https://example.com) first. Sou um assistente automático.",
    "I am an automated assistant. A call-back at 10:30 works; run-time errors are logged for 30 days.",
]
REFUSED = {
    "is empty": ["", "  \n", "\0"],
    "a setting": [
        "Set GOOGLE_API_KEY to get answers.",
        "Start me with MODEL=openai:gpt, please.",
        "DATABASE_URL is wrong.",
        "Configure OPENAI_API_KEY.",
    ],
    "the people who run the service": [
        "I am the offline model.",
        "No language model is configured.",
        "Nenhum modelo de linguagem está configurado.",
        "I could not finish this: the model's replies could not be read.",
    ],
    "internal error": [
        "Traceback (most recent call last):\n  ...",
        "ValueError happened.",
        "CrmUnavailable: no route",
        "I saw asyncio.TimeoutError in it.",
    ],
    "internal part": [
        "I will use search_knowledge_base now.",
        "It ended: crm_unavailable.",
        "needs_model, sorry.",
    ],
    "internal id": [
        "You are contact 550e8400-e29b-41d4-a716-446655440000.",
        "See call-3f2a91bc77 for it.",
        "The article kb-large-exports says so.",
        "Deal OPP-3001 is open.",
        "Row inv-1102 is unpaid.",
    ],
    "parts of the prompt": [
        "<contact>Laura</contact> Hello!",
        "[Your last reply could not be read] it was empty.",
        "[2026-03-01, summary of session 1a2b3c4d] She likes tea.",
    ],
    "private reasoning": ["<think>She is angry.</think>Hello!", "Thought: I look it up.\nHere you are."],
    "not filled in": ["Dear {name}, hello!", "Olá {{ nome }}!", "Use %FIRST_NAME% here."],
}


@pytest.mark.parametrize("text", FINE)
def test_an_ordinary_answer_may_be_sent(text: str) -> None:
    assert CustomerText(text).text == text


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in REFUSED.items() for text in texts])
def test_a_text_that_no_customer_may_read_is_refused_with_the_reason(why: str, text: str) -> None:
    with pytest.raises(TextRefused) as refused:
        CustomerText(text)
    assert why in refused.value.message


def test_a_checked_text_cannot_be_changed_or_extended() -> None:
    text = CustomerText("Hello!")
    with pytest.raises(dataclasses.FrozenInstanceError):
        text.text = "Set GOOGLE_API_KEY."  # type: ignore[misc]  # what is tested
    assert getattr(CustomerText, "__final__", False)


def test_the_crm_client_sends_customers_nothing_but_checked_text() -> None:
    assert get_type_hints(CrmClient.send_message)["text"] is CustomerText
    # No other method posts messages.
    posts = [name for name, method in vars(CrmClient).items() if '"/messages"' in _read_source(method)]
    assert posts == ["send_message"]


def _read_source(method: Any) -> str:
    return inspect.getsource(method) if inspect.isfunction(method) else ""


def test_every_name_of_the_service_is_refused() -> None:
    """A new tool, error or reason whose name would pass needs a look at the check."""
    tools = [*crm_tools(None), *memory_tools(None)]  # type: ignore[arg-type]  # no call is made
    codes = [each.code for each in vars(errors).values() if _is_error(each)]
    reasons = [reason for spec in REGISTRY.values() for reason in _iter_reasons(spec.output_schema)]
    names = [name for name in (*tools, *codes, *reasons) if "_" in name]
    assert len(names) > 60
    assert [name for name in names if not find_customer_text_fault(f"It says {name} here.")] == []


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, ServiceError)


def _iter_reasons(output: type[Any]) -> Iterator[str]:
    hints = get_type_hints(output)
    for name in ("reason", "reason_incomplete"):
        for argument in get_args(hints.get(name)):
            yield from (value for value in get_args(argument) if isinstance(value, str))


@pytest.mark.parametrize("reason", _REASON_TEXTS)
def test_how_an_incomplete_run_ends_is_not_for_customers(reason: Any) -> None:
    detail = {"max_iterations_reached": "8 iterations were used"}.get(reason, reason)
    text = f"I could not finish this: {_REASON_TEXTS[reason]} ({detail})."
    assert find_customer_text_fault(text) or reason == "max_iterations_reached"


def _iter_fixed_texts() -> Iterator[str]:
    filled = {
        "name": "Laura", "team": "billing", "title": "Exports", "passage": "Use batches.", "code": "ORD-9999",
        "month": "June", "language": "English", "used": "5", "limit": "10", "articles": "- Exports",
        "status": "paused", "profile": "Industry: retail.", "steps": "tour done",
    }  # fmt: skip
    for phrases in PHRASES.values():
        # The thought goes with tool calls and is not sent.
        sentences = {name: text for name, text in phrases.items() if name != "thought"}
        yield from (text.format(**filled) for text in sentences.values())
    for language, texts in TEXTS.items():
        for value in dataclasses.asdict(texts).values():
            values = value.values() if isinstance(value, dict) else [value]
            yield from (text.format(**filled) for text in values)
        for recorded in (True, False):
            for by_rule in (True, False):
                handoff = {**decisions.build_handoff("billing", "asked"), "recorded": recorded}
                yield decisions.format_handoff(language, handoff, by_rule=by_rule)  # type: ignore[arg-type]  # as built
        yield decisions.QUESTION[language]


def test_every_fixed_text_may_be_sent() -> None:
    texts = list(_iter_fixed_texts())
    assert len(texts) > 100
    assert {text: fault for text in texts if (fault := find_customer_text_fault(text))} == {}
