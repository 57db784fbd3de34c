"""No words break the development CRM's search, and no change of an opportunity changes more than it says."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from core.postgres import Pool
from dev_crm.app import create_crm
from dev_crm.migrations import migrate
from tests.support.profiles import examples

LAURA = "550e8400-e29b-41d4-a716-446655440000"

# Any text, and text that is close to the syntax of a text search query.
words = st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab'\\&|!<->():*\"%\0 ", max_size=30)


@pytest.fixture
async def crm(pool: Pool) -> AsyncIterator[httpx.AsyncClient]:
    await migrate(pool)
    transport = httpx.ASGITransport(create_crm(pool, SecretStr("key"), requests_per_minute=1_000_000))
    headers = {"Authorization": "Bearer key"}
    async with httpx.AsyncClient(transport=transport, base_url="http://crm", headers=headers) as client:
        yield client


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(q=words)
@example(q="export & | ! contacts")
@example(q="it's \\ \\' a 'quote")
@example(q="https://crm.example/a?b=c&d='e'|f\\g")
@example(q="x" * 3_000)
@example(q=("é" * 1_023 + " ") * 3)
@example(q="a.b@c.example -- %s %(q)s $1")
@example(q="\x00")
async def test_any_words_can_be_searched_for(crm: httpx.AsyncClient, q: str) -> None:
    articles = await crm.get("/api/v1/knowledge-base/search", params={"q": q, "limit": 50})
    assert articles.status_code == (200 if q.replace("\x00", " ").strip() else 422)
    tickets = await crm.get(f"/api/v1/contacts/{LAURA}/tickets", params={"q": q})
    assert tickets.status_code == 200


@settings(
    max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(noise=words)
async def test_a_word_finds_its_article_in_any_noise(crm: httpx.AsyncClient, noise: str) -> None:
    response = await crm.get("/api/v1/knowledge-base/search", params={"q": f"boleto {noise}", "limit": 50})
    assert "kb-cobranca-boleto" in [article["id"] for article in response.json()["articles"]]


short = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: bool(text.strip())
)
qualifications = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("budget", "authority", "need", "timeline"), st.none() | short)
)
objections = st.lists(st.fixed_dictionaries({"text": short, "answer": st.none() | short}), max_size=3)
changes = st.fixed_dictionaries(
    {},
    optional={
        "stage": st.sampled_from(["needs", "solution", "objections", "proposal", "negotiation"]),
        "qualification": qualifications,
        "needs": st.lists(short, max_size=3),
        "objections": objections,
        **dict.fromkeys(("solution", "proposal", "terms", "next_action"), st.none() | short),
    },
)


def stripped(value: Any) -> Any:
    """The value as the CRM keeps it: without space around texts."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [stripped(each) for each in value]
    if isinstance(value, dict):
        return {name: stripped(each) for name, each in value.items()}
    return value


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(change=changes)
async def test_a_change_of_an_opportunity_is_all_that_changes(
    crm: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    path = f"/api/v1/contacts/{LAURA}/opportunities/OPP-3001"
    before = (await crm.get(path)).json()
    response = await crm.patch(path, json=change)
    assert response.status_code == 200, response.text
    after = response.json()
    new = {name: stripped(value) for name, value in change.items() if value is not None}
    known = {name: value for name, value in new.pop("qualification", {}).items() if value is not None}
    expected = {**before, **new, "qualification": {**before["qualification"], **known}}
    assert after == {**expected, "version": after["version"], "updated_at": after["updated_at"]}
    assert after["version"] - before["version"] in {0, 1}
    assert (await crm.get(path)).json() == after
