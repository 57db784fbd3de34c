"""The whole path with a real model: a service process, a language model on this machine, HTTP between them.

The model (``make gguf``) is far weaker than any that answers customers: it repeats its prompt, ignores tools
and misses schemas. Whatever it replies, callers must get honest answers and customers must read none of that.
"""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.checks import NEVER
from benchmarks.gguf import MISSING, is_installed, open_local_model
from graphs.registry import REGISTRY
from tests.support.process import LOCAL_EMBEDDINGS, PROJECT, service_process

RUN_SECONDS = 300
# The service ends a run in time; what is left is for writing its answer on a busy machine.
ANSWER_SECONDS = RUN_SECONDS + 60
LIMITS = {
    "RUN_TIMEOUT_SECONDS": str(RUN_SECONDS),
    "MODEL_TIMEOUT_SECONDS": "150",
    "MODEL_MAX_ATTEMPTS": "1",
    "MODEL_MAX_OUTPUT_TOKENS": "160",
}
# So many words in a row are no coincidence.
ECHO_WORDS = 9

LAURA = "550e8400-e29b-41d4-a716-446655440000"
RAFAEL = "d924702e-7216-42a7-9f90-db93a970ca03"
CAMILA = "7d1bda01-6e58-4cae-a2ca-e38b8d75d126"

pytestmark = [
    pytest.mark.gguf,
    pytest.mark.skipif(not is_installed(), reason=MISSING),
    # Each run may take all of its time, on a machine that does other things too.
    pytest.mark.timeout(2 * ANSWER_SECONDS),
]


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that uses the model; the environment names it, as an operator does."""
    async with (
        open_local_model() as model,
        service_process(tmp_path_factory.mktemp("data"), **model, **LIMITS, **LOCAL_EMBEDDINGS) as service,
        httpx.AsyncClient(base_url=service.url, timeout=ANSWER_SECONDS) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("contact", "message"),
    [
        (LAURA, "Where is my order ORD-7001?"),
        (RAFAEL, "Oi! Como agendo uma campanha para amanhã de manhã?"),
        (LAURA, "hi there"),
    ],
)
async def test_a_message_is_answered_or_handed_over_without_a_word_of_the_prompt(
    http: httpx.AsyncClient, contact: str, message: str
) -> None:
    answer = await post(http, "/v1/messages", {"contact_id": contact, "message": message})
    if answer is None:
        return
    assert answer["metadata"]["is_language_model"] is True
    assert answer["response"].strip()
    assert_for_customers(answer["response"])
    if answer["success"]:
        assert answer["reason_incomplete"] is None
    else:
        assert answer["reason_incomplete"]
    # A person is only promised when one was told.
    assert answer["handoff"]["recorded"] or answer["path"] != "handoff"


async def test_a_react_run_solves_the_task_or_says_why_not(http: httpx.AsyncClient) -> None:
    output = await run(http, "react")
    if output is not None:
        # For whoever gave the task: an answer may go on to the customer, a failure is about the model.
        if output["success"]:
            assert_for_customers(output["final_answer"])
        assert_without_prompt(output["final_answer"])
        assert output["success"] is (output["reason_incomplete"] is None)


async def test_a_critique_returns_an_approved_text_or_says_why_not(http: httpx.AsyncClient) -> None:
    output = await run(http, "critique_refine")
    if output is not None:
        assert_for_customers(output["output"])
        assert output["success"] is (output["reason"] is None)


async def test_a_plan_is_carried_out_or_its_end_has_a_reason(http: httpx.AsyncClient) -> None:
    output = await run(http, "planning_monitor")
    if output is not None:
        assert output["completed"] is (output["reason"] is None)
        assert output["results"] or not output["completed"]


async def test_an_onboarding_asks_the_customer_and_reads_the_reply(http: httpx.AsyncClient) -> None:
    begun = await run(http, "onboarding", {"contact_id": CAMILA, "message": "Oi, quero começar"})
    if begun is None:
        return
    [asked] = begun["interrupts"]
    assert_for_customers(asked["value"]["text"])
    thread = {"configurable": {"thread_id": begun["thread_id"]}}
    answered = await run(http, "onboarding", {"resume": "Somos 12 pessoas"}, config=thread)
    if answered is not None:
        assert answered["profile"]["company_size"] in {None, 12}
        for pending in answered["interrupts"]:
            assert_for_customers(pending["value"]["text"])


async def test_the_model_was_really_asked(http: httpx.AsyncClient) -> None:
    counted = (await http.get("/metrics")).text
    replies = re.findall(r'^ventros_model_calls_total\{.*outcome="answered"\} (\S+)', counted, re.MULTILINE)
    assert sum(map(float, replies)) > 0


async def run(
    http: httpx.AsyncClient, graph: str, given: dict[str, Any] | None = None, **rest: Any
) -> dict[str, Any] | None:
    """Return a graph's output; its example is the default input."""
    body = {"input": given or dict(REGISTRY[graph].example), **rest}
    answer = await post(http, f"/{graph}/invoke", body)
    if answer is None:
        return None
    output: dict[str, Any] = answer["output"]
    assert output["metadata"]["is_language_model"] is True
    return output


async def post(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the answer, or None if the model was too slow or unusable and the service says so."""
    response = await http.post(path, json=body)
    assert response.status_code in {200, 502, 503, 504}, response.text
    answer: dict[str, Any] = response.json()
    if response.status_code == httpx.codes.OK:
        return answer
    assert answer["error"] in {"model_unavailable", "model_misconfigured", "model_refused", "run_timed_out"}
    return None


def assert_for_customers(text: str) -> None:
    """Check that a text has nothing for operators in it, and no words of a prompt."""
    assert [what for what, pattern in NEVER.items() if pattern.search(text)] == [], text
    assert_without_prompt(text)


def assert_without_prompt(text: str) -> None:
    """Check that a text repeats no run of words of a prompt or of an agent's file."""
    said = set(list_word_runs(text))
    for path in list_prompts():
        assert said.isdisjoint(list_word_runs(path.read_text(encoding="utf-8"))), (path.name, text)


def list_prompts() -> list[Path]:
    return [*(PROJECT / "prompts").glob("*.md"), *(PROJECT / "agents").glob("[!R]*.md")]


def list_word_runs(text: str) -> Iterator[str]:
    """Yield all runs of so many words that they show where a text comes from."""
    words = re.findall(r"\w+", text.lower())
    for start in range(len(words) - ECHO_WORDS + 1):
        yield " ".join(words[start : start + ECHO_WORDS])
