"""The development CRM implements the contract of the CRM that it stands in for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from psycopg import sql
from pydantic import SecretStr
from structlog.testing import capture_logs

from checkpoints.pool import open_pool
from core.postgres import Pool
from core.settings import DatabaseSettings
from dev_crm import migrations
from dev_crm.access import TokenBucket
from dev_crm.app import create_crm
from dev_crm.migrations import SEEDED_TABLES, migrate, seed_tables

KEY = "a-key-for-tests"
LAURA = "550e8400-e29b-41d4-a716-446655440000"
NOBODY = "00000000-0000-4000-8000-000000000000"

MESSAGE = {"contact_id": LAURA, "text": "Your export is ready.", "from_me": True, "source": "support-agent"}
TICKET = {
    "contact_id": LAURA,
    "title": "Export of 48,500 contacts ends in Error 500",
    "description": "The export through the user interface times out.",
    "severity": "high",
    "source": "support-agent",
}
TITLES_OF_LAURA = [
    "Filtered segment shows fewer contacts than expected",
    "Duplicate contacts after import",
    "Slow CSV import",
]
WRITES = [("/api/v1/messages", MESSAGE), ("/api/v1/engineering-tickets", TICKET)]
LISTS = {"/api/v1/messages": "messages", "/api/v1/engineering-tickets": "engineering_tickets"}
READS = [
    f"/api/v1/contacts/{LAURA}",
    f"/api/v1/contacts/{LAURA}/subscription",
    f"/api/v1/contacts/{LAURA}/tickets",
    "/api/v1/knowledge-base/search?q=export",
    "/api/v1/status",
    "/api/v1/engineering-tickets",
    "/api/v1/messages",
]


def client_of(app: FastAPI, authorization: str | None = f"Bearer {KEY}") -> httpx.AsyncClient:
    headers = {} if authorization is None else {"Authorization": authorization}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://crm", headers=headers)


@pytest.fixture
async def empty_database_url(database_url: str) -> str:
    """A database the CRM was never in, whatever the shared fixtures prepare."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("DROP SCHEMA IF EXISTS crm CASCADE")
    return database_url


@pytest.fixture
async def empty_pool(empty_database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(empty_database_url, DatabaseSettings(pool_min_size=0, pool_max_size=8)) as pool:
        yield pool


@pytest.fixture
async def app(pool: Pool) -> FastAPI:
    await migrate(pool)
    return create_crm(pool, SecretStr(KEY))


@pytest.fixture
async def crm(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture(scope="module")
async def reader(shared_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client for tests that change nothing in the CRM, which share its database."""
    settings = DatabaseSettings(pool_min_size=0, pool_max_size=4)
    async with (
        open_pool(shared_database_url, settings) as pool,
        client_of(create_crm(pool, SecretStr(KEY))) as client,
    ):
        yield client


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"error", "message", "details"}
    assert body["error"] == code
    assert body["message"]
    assert "Traceback" not in response.text
    return body


async def kept(crm: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    response = await crm.get(path, params={"contact_id": LAURA})
    rows: list[dict[str, Any]] = response.json()[LISTS[path]]
    return rows


# What it holds


async def test_a_contact_is_shown_with_who_and_where_they_are(reader: httpx.AsyncClient) -> None:
    response = await reader.get(f"/api/v1/contacts/{LAURA}")
    assert response.status_code == 200
    assert response.json() == {
        "id": LAURA,
        "name": "Laura Bennett",
        "email": "laura.bennett@meridianlogistics.example",
        "phone": "+1 312-555-0142",
        "company": "Meridian Logistics",
        "role": "Head of Customer Operations",
        "language": "en",
        "timezone": "America/Chicago",
        "created_at": "2024-03-11T15:20:00Z",
        "profile": {"company_size": 420, "industry": "Logistics", "use_case": None, "team_size": None},
    }


async def test_a_subscription_says_plan_version_and_usage(reader: httpx.AsyncClient) -> None:
    body = (await reader.get(f"/api/v1/contacts/{LAURA}/subscription")).json()
    assert body["contact_id"] == LAURA
    assert (body["plan"], body["product_version"], body["status"]) == ("Enterprise", "2.3.1", "active")
    assert body["usage"]["contacts"] == {"used": 48_500, "limit": 50_000}
    assert body["usage"]["automations"]["limit"] is None
    assert body["monthly_amount"] == "899.00"


async def test_tickets_come_newest_first_with_how_they_were_resolved(reader: httpx.AsyncClient) -> None:
    tickets = (await reader.get(f"/api/v1/contacts/{LAURA}/tickets")).json()["tickets"]
    dates = [ticket["created_at"] for ticket in tickets]
    assert dates == sorted(dates, reverse=True)
    slow_import = next(ticket for ticket in tickets if ticket["title"] == "Slow CSV import")
    assert slow_import["status"] == "resolved"
    assert "empty columns" in slow_import["resolution"]
    assert slow_import["resolved_at"] > slow_import["created_at"]


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("importing", ["Duplicate contacts after import", "Slow CSV import"]),
        ("zebra CSV", ["Slow CSV import"]),
        ("zebra", []),
        ("the of and", []),
        ("", TITLES_OF_LAURA),
    ],
)
async def test_tickets_are_filtered_by_any_of_the_words(
    reader: httpx.AsyncClient, query: str, titles: list[str]
) -> None:
    response = await reader.get(f"/api/v1/contacts/{LAURA}/tickets", params={"q": query})
    assert [ticket["title"] for ticket in response.json()["tickets"]] == titles


async def test_the_limit_of_tickets_is_respected(reader: httpx.AsyncClient) -> None:
    response = await reader.get(f"/api/v1/contacts/{LAURA}/tickets", params={"limit": 1})
    assert [ticket["title"] for ticket in response.json()["tickets"]] == TITLES_OF_LAURA[:1]


async def test_everything_works_today_and_past_incidents_are_resolved(reader: httpx.AsyncClient) -> None:
    body = (await reader.get("/api/v1/status")).json()
    assert body["status"] == "operational"
    assert {component["status"] for component in body["components"]} == {"operational"}
    assert {incident["status"] for incident in body["incidents"]} == {"resolved"}
    assert len(body["incidents"]) >= 3
    starts = [incident["started_at"] for incident in body["incidents"]]
    assert starts == sorted(starts, reverse=True)


async def test_the_status_is_that_of_the_worst_component(crm: httpx.AsyncClient, pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("UPDATE crm.components SET status = 'degraded' WHERE name = 'API'")
        assert (await crm.get("/api/v1/status")).json()["status"] == "degraded"
        await connection.execute("UPDATE crm.components SET status = 'outage' WHERE name = 'Webhooks'")
        assert (await crm.get("/api/v1/status")).json()["status"] == "outage"


async def test_every_customer_of_the_seeded_company_can_be_read(crm: httpx.AsyncClient, pool: Pool) -> None:
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT id FROM crm.contacts")).fetchall()
    assert len(rows) == 12
    languages, plans, tickets = set(), set(), 0
    for row in rows:
        languages.add((await crm.get(f"/api/v1/contacts/{row['id']}")).json()["language"])
        subscription = (await crm.get(f"/api/v1/contacts/{row['id']}/subscription")).json()
        plans.add(subscription["plan"])
        for usage in subscription["usage"].values():
            assert usage["limit"] is None or usage["used"] <= usage["limit"]
        tickets += len((await crm.get(f"/api/v1/contacts/{row['id']}/tickets")).json()["tickets"])
    assert languages == {"en", "pt"}
    assert plans == {"Free", "Starter", "Pro", "Enterprise"}
    assert tickets >= 25


# Searching the knowledge base


async def search(crm: httpx.AsyncClient, query: str, **params: int) -> list[dict[str, Any]]:
    response = await crm.get("/api/v1/knowledge-base/search", params={"q": query, **params})
    assert response.status_code == 200, response.text
    articles: list[dict[str, Any]] = response.json()["articles"]
    return articles


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("Error 500 export contacts", "Handling Large Exports"),
        ("I'm getting Error 500 when trying to export contacts", "Handling Large Exports"),
        ("The export of 48,500 contacts fails, we are on 2.3.1", "Handling Large Exports"),
        ("how do I import contacts from a spreadsheet?", "Importing contacts from a CSV file"),
        ("we keep getting 429 too many requests", "API rate limits and 429 Too Many Requests"),
        ("our emails go to spam", "Why campaign e-mails land in spam"),
        ("my card was declined", "Failed payments and updating your card"),
        ("I was charged twice and want a refund", "Invoices, tax details and refunds"),
        ("SSO login fails with invalid SAML signature", "Setting up single sign-on with SAML"),
        ("template rejected whatsapp", "WhatsApp message templates and the 24-hour window"),
        ("webhook signature mismatch", "Receiving webhooks and checking their signature"),
        ("delete a person's data under the GDPR", "Answering GDPR requests: access, export and erasure"),
        ("what happens when I hit my contact limit", "Contact limits and what happens when you reach them"),
        ("I forgot my password", "Cannot log in: passwords and two-factor codes"),
        ("Shopify orders twice", "Connecting Shopify, Zapier and Google Sheets"),
        ("Erro 500 ao exportar contatos", "Exportações grandes: mais de 40 mil registros"),
        ("como importar contatos do Excel", "Como importar contatos de uma planilha"),
        ("preciso da segunda via do boleto", "Segunda via de boleto, nota fiscal e troca de cartão"),
        ("meu cartão venceu", "Segunda via de boleto, nota fiscal e troca de cartão"),
        ("modelo do WhatsApp recusado", "Modelos de mensagem do WhatsApp recusados"),
        ("excluir os dados de um cliente", "LGPD: exclusão de dados e consentimento"),
        ("a campanha saiu na hora errada", "Agendamento de campanhas e fuso horário"),
    ],
)
async def test_the_article_that_helps_comes_first(reader: httpx.AsyncClient, query: str, first: str) -> None:
    articles = await search(reader, query)
    assert articles[0]["title"] == first
    scores = [article["score"] for article in articles]
    assert scores == sorted(scores, reverse=True)


async def test_the_article_on_large_exports_says_when_and_how(reader: httpx.AsyncClient) -> None:
    article = (await search(reader, "Error 500 export contacts", limit=1))[0]
    assert set(article) == {"id", "title", "body", "tags", "language", "score", "updated_at"}
    for fact in (
        "40K",
        "40,000",
        "10K",
        "10,000",
        "Error 500",
        "times out",
        "POST /exports/batch",
        "filters",
    ):
        assert fact in article["body"]


async def test_unknown_words_do_not_hide_matching_articles(reader: httpx.AsyncClient) -> None:
    assert (await search(reader, "zzyzx quux boleto"))[0]["id"] == "kb-cobranca-boleto"
    assert await search(reader, "zzyzx quux") == []
    assert await search(reader, "the and of") == []


async def test_articles_are_listed_by_page_and_by_what_changed(reader: httpx.AsyncClient) -> None:
    async def page(**params: Any) -> dict[str, Any]:
        response = await reader.get("/api/v1/knowledge-base/articles", params=params)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    everything = await page()
    ids = [article["id"] for article in everything["articles"]]
    assert (len(ids), ids, everything["next"]) == (everything["total"], sorted(ids), None)
    first = await page(limit=40)
    rest = await page(limit=40, after=first["next"])
    assert [article["id"] for each in (first, rest) for article in each["articles"]] == ids
    assert rest["next"] is None
    newest = max(article["updated_at"] for article in everything["articles"])
    changed = await page(updated_since=newest)
    assert [article["updated_at"] for article in changed["articles"]] == [newest]
    assert changed["total"] == len(ids)
    refused = await reader.get("/api/v1/knowledge-base/articles", params={"updated_since": "yesterday"})
    assert refused.status_code == 422


async def test_an_overlong_query_is_searched_by_its_beginning(reader: httpx.AsyncClient) -> None:
    assert (await search(reader, "boleto " + "x" * 40_000))[0]["id"] == "kb-cobranca-boleto"


async def test_the_limit_of_articles_is_respected(reader: httpx.AsyncClient) -> None:
    assert len(await search(reader, "contacts", limit=2)) == 2
    assert len(await search(reader, "contacts")) == 5


@pytest.mark.parametrize("query", ["", "?q=", "?q=%20%20", "?q=%00", "?q=x&limit=0", "?q=x&limit=many"])
async def test_a_search_without_words_or_with_a_wrong_limit_is_refused(
    reader: httpx.AsyncClient, query: str
) -> None:
    assert_problem(await reader.get(f"/api/v1/knowledge-base/search{query}"), 422, "invalid_request")


# Writing


async def test_an_engineering_ticket_is_created_and_can_be_seen(crm: httpx.AsyncClient) -> None:
    response = await crm.post("/api/v1/engineering-tickets", json=TICKET)
    assert response.status_code == 201
    created = response.json()
    assert created["id"].startswith("ENG-")
    assert created.items() >= {**TICKET, "status": "open"}.items()
    assert await kept(crm, "/api/v1/engineering-tickets") == [created]


async def test_a_message_is_created_and_can_be_seen(crm: httpx.AsyncClient) -> None:
    response = await crm.post("/api/v1/messages", json=MESSAGE)
    assert response.status_code == 201
    assert response.json().items() >= MESSAGE.items()
    assert "Idempotency-Replayed" not in response.headers
    newest, *earlier = await kept(crm, "/api/v1/messages")
    assert newest == response.json()
    assert {message["from_me"] for message in earlier} == {True, False}


async def test_without_a_contact_everyones_messages_are_listed(reader: httpx.AsyncClient) -> None:
    messages = (await reader.get("/api/v1/messages")).json()["messages"]
    assert len({message["contact_id"] for message in messages}) > 1


@pytest.mark.parametrize(
    "text", ["Olá, João! 👋", "'); DROP TABLE crm.messages; --", "a\nb\tc", "x" * 20_000]
)
async def test_a_message_is_kept_as_it_was_written(crm: httpx.AsyncClient, text: str) -> None:
    assert (await crm.post("/api/v1/messages", json={**MESSAGE, "text": text})).status_code == 201
    assert (await kept(crm, "/api/v1/messages"))[0]["text"] == text


@pytest.mark.parametrize(
    "change",
    [
        {"text": ""},
        {"text": "   "},
        {"text": "x" * 20_001},
        {"text": "a\x00b"},
        {"text": None},
        {"text": 1},
        {"contact_id": "not-a-uuid"},
        {"from_me": "perhaps"},
        {"source": ""},
        {"priority": "a field that does not exist"},
    ],
)
async def test_a_message_that_does_not_fit_is_refused_with_the_field_named(
    reader: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    body = assert_problem(
        await reader.post("/api/v1/messages", json={**MESSAGE, **change}), 422, "invalid_request"
    )
    (field,) = change
    assert [fault["field"] for fault in body["details"]["errors"]] == [f"body.{field}"]
    assert field in body["message"]


@pytest.mark.parametrize("missing", list(TICKET))
async def test_an_engineering_ticket_needs_all_its_fields(reader: httpx.AsyncClient, missing: str) -> None:
    body = {name: value for name, value in TICKET.items() if name != missing}
    assert_problem(await reader.post("/api/v1/engineering-tickets", json=body), 422, "invalid_request")


async def test_an_unknown_severity_is_refused_with_the_known_ones(reader: httpx.AsyncClient) -> None:
    response = await reader.post("/api/v1/engineering-tickets", json={**TICKET, "severity": "urgent"})
    assert "'critical'" in assert_problem(response, 422, "invalid_request")["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"text": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"text": ' + b"9" * 5_000 + b"}",
        b'{"contact_id": NaN}',
    ],
)
@pytest.mark.parametrize("path", LISTS)
async def test_a_malformed_body_is_refused(reader: httpx.AsyncClient, path: str, content: bytes) -> None:
    response = await reader.post(path, content=content, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, "invalid_request")


async def test_a_body_that_does_not_say_it_is_json_is_refused(reader: httpx.AsyncClient) -> None:
    response = await reader.post("/api/v1/messages", data={"text": "hello"})
    assert_problem(response, 422, "invalid_request")


# Idempotency


@pytest.mark.parametrize(("path", "body"), WRITES)
async def test_a_request_sent_again_has_one_effect_and_the_same_answer(
    crm: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    before = len(await kept(crm, path))
    first = await crm.post(path, json=body, headers={"Idempotency-Key": "thread-1/step-2/call-3"})
    again = await crm.post(path, json=body, headers={"Idempotency-Key": "thread-1/step-2/call-3"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(await kept(crm, path)) == before + 1


@pytest.mark.parametrize(("path", "body"), WRITES)
async def test_requests_sent_at_once_with_one_key_have_one_effect(
    crm: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    before = len(await kept(crm, path))
    answers = await asyncio.gather(
        *(crm.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert len(await kept(crm, path)) == before + 1


@pytest.mark.parametrize(("path", "body"), WRITES)
async def test_a_key_that_comes_back_with_another_body_is_refused(
    crm: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    await crm.post(path, json=body, headers={"Idempotency-Key": "k"})
    before = await kept(crm, path)
    response = await crm.post(path, json={**body, "source": "another"}, headers={"Idempotency-Key": "k"})
    assert_problem(response, 409, "idempotency_key_reused")
    assert await kept(crm, path) == before


async def test_of_different_bodies_sent_at_once_with_one_key_one_wins(crm: httpx.AsyncClient) -> None:
    before = len(await kept(crm, "/api/v1/messages"))
    answers = await asyncio.gather(
        *(
            crm.post("/api/v1/messages", json={**MESSAGE, "text": text}, headers={"Idempotency-Key": "k"})
            for text in "abcdefgh"
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(await kept(crm, "/api/v1/messages")) == before + 1


async def test_the_order_of_fields_does_not_change_a_request(crm: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await crm.post("/api/v1/messages", json=MESSAGE, headers=headers)
    again = await crm.post("/api/v1/messages", json=dict(reversed(MESSAGE.items())), headers=headers)
    assert again.content == first.content


async def test_a_key_of_one_endpoint_is_free_at_another(crm: httpx.AsyncClient) -> None:
    for path, body in WRITES:
        response = await crm.post(path, json=body, headers={"Idempotency-Key": "k"})
        assert response.status_code == 201
        assert "Idempotency-Replayed" not in response.headers


async def test_without_a_key_each_request_has_its_effect(crm: httpx.AsyncClient) -> None:
    ids = {(await crm.post("/api/v1/messages", json=MESSAGE)).json()["id"] for _ in range(2)}
    assert len(ids) == 2


async def test_a_refused_request_does_not_use_its_key_up(crm: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    unknown = {**MESSAGE, "contact_id": NOBODY}
    assert_problem(await crm.post("/api/v1/messages", json=unknown, headers=headers), 404, "not_found")
    assert (await crm.post("/api/v1/messages", json=MESSAGE, headers=headers)).status_code == 201


@pytest.mark.parametrize("key", [b"", b"x" * 201, b"caf\xe9", b"a\x01b"])
async def test_an_invalid_idempotency_key_is_refused(reader: httpx.AsyncClient, key: bytes) -> None:
    headers = httpx.Headers([(b"Idempotency-Key", key)])
    response = await reader.post("/api/v1/messages", json=MESSAGE, headers=headers)
    assert_problem(response, 422, "invalid_request")


async def test_the_longest_idempotency_key_is_accepted(crm: httpx.AsyncClient) -> None:
    response = await crm.post("/api/v1/messages", json=MESSAGE, headers={"Idempotency-Key": "k" * 200})
    assert response.status_code == 201


# Refusals


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer caf\xe9"],
)
async def test_nothing_can_be_read_without_the_api_key(app: FastAPI, authorization: str | None) -> None:
    async with client_of(app, None) as client:
        if authorization is not None:
            client.headers = httpx.Headers([(b"Authorization", authorization.encode("latin-1"))])
        for path in [*READS, "/api/v1", "/api/v1/", "/api/v1/no-such-thing"]:
            response = await client.get(path)
            assert_problem(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_nothing_can_be_written_without_the_api_key(app: FastAPI, crm: httpx.AsyncClient) -> None:
    before = await kept(crm, "/api/v1/messages")
    async with client_of(app, None) as client:
        assert_problem(await client.post("/api/v1/messages", json=MESSAGE), 401, "unauthorized")
        assert_problem(await client.post("/api/v1/messages", content=b"{"), 401, "unauthorized")
    assert await kept(crm, "/api/v1/messages") == before


async def test_an_empty_key_is_refused_at_start(pool: Pool) -> None:
    with pytest.raises(ValueError, match="api_key"):
        create_crm(pool, SecretStr(""))


@pytest.mark.parametrize(
    "path",
    [
        f"/api/v1/contacts/{NOBODY}",
        f"/api/v1/contacts/{NOBODY}/subscription",
        f"/api/v1/contacts/{NOBODY}/tickets",
        f"/api/v1/messages?contact_id={NOBODY}",
        f"/api/v1/engineering-tickets?contact_id={NOBODY}",
    ],
)
async def test_an_unknown_contact_is_not_found(reader: httpx.AsyncClient, path: str) -> None:
    body = assert_problem(await reader.get(path), 404, "not_found")
    assert body["details"] == {"contact_id": NOBODY}


@pytest.mark.parametrize(("path", "body"), WRITES)
async def test_nothing_can_be_written_for_an_unknown_contact(
    reader: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    assert_problem(await reader.post(path, json={**body, "contact_id": NOBODY}), 404, "not_found")


async def test_a_contact_without_a_subscription_gets_its_own_message(
    crm: httpx.AsyncClient, pool: Pool
) -> None:
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM crm.subscriptions WHERE contact_id = %s", (LAURA,))
    body = assert_problem(await crm.get(f"/api/v1/contacts/{LAURA}/subscription"), 404, "not_found")
    assert "subscription" in body["message"]


@pytest.mark.parametrize("path", ["/api/v1/no-such-thing", "/api/v1/status/", "/api/v2/status", "/nowhere"])
async def test_an_unknown_address_is_not_found(reader: httpx.AsyncClient, path: str) -> None:
    assert_problem(await reader.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/contacts/42", "/contacts/x/tickets", "/messages?contact_id=42"])
async def test_a_malformed_contact_id_is_refused(reader: httpx.AsyncClient, path: str) -> None:
    assert_problem(await reader.get(f"/api/v1{path}"), 422, "invalid_request")


async def test_a_method_that_an_address_does_not_have_is_refused(reader: httpx.AsyncClient) -> None:
    response = await reader.delete(f"/api/v1/contacts/{LAURA}")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "GET"


async def test_a_caller_over_the_rate_limit_learns_how_long_to_wait(pool: Pool) -> None:
    await migrate(pool)
    app = create_crm(pool, SecretStr(KEY), requests_per_minute=2)
    async with client_of(app) as client, client_of(app, "Bearer wrong") as stranger:
        for _ in range(5):
            assert (await stranger.get("/api/v1/status")).status_code == 401
        assert [(await client.get("/api/v1/status")).status_code for _ in range(2)] == [200, 200]
        response = await client.get("/api/v1/status")
        assert_problem(response, 429, "too_many_requests")
        assert 1 <= int(response.headers["Retry-After"]) <= 30
        assert (await client.get("/")).status_code == 200


def test_after_the_announced_wait_a_request_gets_through() -> None:
    now = 100.0
    bucket = TokenBucket(60, clock=lambda: now)
    assert [bucket.take() for _ in range(60)] == [0] * 60
    wait = bucket.take()
    assert wait == pytest.approx(1)
    now += wait
    assert bucket.take() == 0
    assert bucket.take() > 0


def test_an_idle_bucket_saves_up_a_minute_of_requests_and_no_more() -> None:
    now = 0.0
    bucket = TokenBucket(3, clock=lambda: now)
    now += 86_400
    assert [bucket.take() == 0 for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("rate", [0, -1])
async def test_a_rate_that_lets_nothing_through_is_refused_at_start(pool: Pool, rate: int) -> None:
    with pytest.raises(ValueError, match="requests_per_minute"):
        create_crm(pool, SecretStr(KEY), requests_per_minute=rate)


# Failures


async def assert_unavailable(app: FastAPI) -> None:
    async with client_of(app) as client:
        responses = [await client.get(path) for path in READS[:1]]
        responses += [await client.post(path, json=body) for path, body in WRITES]
    for response in responses:
        assert_problem(response, 503, "database_unavailable")
        assert int(response.headers["Retry-After"]) >= 1


async def test_with_the_pool_closed_the_crm_says_unavailable(app: FastAPI, pool: Pool) -> None:
    await pool.close()
    await assert_unavailable(app)


async def test_with_the_database_gone_the_crm_says_unavailable_until_it_is_back(
    postgres: str, database_url: str
) -> None:
    settings = DatabaseSettings(pool_min_size=0, connect_timeout_seconds=1)
    async with open_pool(database_url, settings) as pool:
        await migrate(pool)
        app = create_crm(pool, SecretStr(KEY))
        async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as admin:
            name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
            database = sql.Identifier(str(name))
            await admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            await assert_unavailable(app)
            await admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))
        async with client_of(app) as client:
            for _ in range(30):
                if (response := await client.get("/api/v1/status")).status_code == 200:
                    break
            assert response.status_code == 200


async def test_a_mistake_in_the_sql_is_a_failure_whose_traceback_is_logged(empty_pool: Pool) -> None:
    app = create_crm(empty_pool, SecretStr(KEY))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://crm", headers=headers) as client:
        with capture_logs() as logs:
            response = await client.get(READS[0])
    assert_problem(response, 500, "internal_error")
    [failure] = [entry for entry in logs if entry["event"] == "crm_failed"]
    assert isinstance(failure["exc_info"], psycopg.errors.UndefinedTable)


async def test_an_unforeseen_failure_has_the_crms_error_body(app: FastAPI, pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("""UPDATE crm.subscriptions SET usage = '{"contacts": {}}'""")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://crm", headers=headers) as client:
        response = await client.get(f"/api/v1/contacts/{LAURA}/subscription")
    assert_problem(response, 500, "internal_error")


# Starting


async def test_a_second_start_changes_nothing(empty_pool: Pool) -> None:
    await migrate(empty_pool)
    async with empty_pool.connection() as connection:
        await connection.execute("DELETE FROM crm.tickets")
        await connection.execute("UPDATE crm.contacts SET name = 'Renamed' WHERE id = %s", (LAURA,))
    await migrate(empty_pool)
    async with empty_pool.connection() as connection:
        tickets = await (await connection.execute("SELECT 1 FROM crm.tickets")).fetchall()
        named = await (
            await connection.execute("SELECT 1 FROM crm.contacts WHERE name = 'Renamed'")
        ).fetchall()
    assert (len(tickets), len(named)) == (0, 1)


async def test_services_that_start_together_take_turns(empty_database_url: str) -> None:
    async def start() -> int:
        async with open_pool(empty_database_url, DatabaseSettings(pool_min_size=0, pool_max_size=2)) as pool:
            await migrate(pool)
            async with pool.connection() as connection:
                return len(await (await connection.execute("SELECT 1 FROM crm.articles")).fetchall())

    assert await asyncio.gather(*(start() for _ in range(5))) == [41] * 5


async def test_seeding_again_adds_only_what_is_missing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(pool)
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM crm.articles WHERE id = 'kb-lgpd'")
        await connection.execute("UPDATE crm.contacts SET name = 'Renamed' WHERE id = %s", (LAURA,))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, seed_tables(*SEEDED_TABLES)))
    await migrate(pool)
    async with pool.connection() as connection:
        articles = await (await connection.execute("SELECT 1 FROM crm.articles")).fetchall()
        named = await (
            await connection.execute("SELECT 1 FROM crm.contacts WHERE name = 'Renamed'")
        ).fetchall()
    assert (len(articles), len(named)) == (41, 1)


async def test_a_migration_that_fails_leaves_everything_as_it_was(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("DROP TABLE crm.messages")
        await connection.execute("SELECT 1 / 0")

    await migrate(pool)
    before = migrations.MIGRATIONS
    monkeypatch.setattr(migrations, "MIGRATIONS", (*before, fail))
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(pool)
    monkeypatch.setattr(migrations, "MIGRATIONS", before)
    await migrate(pool)
    async with client_of(create_crm(pool, SecretStr(KEY))) as client:
        assert (await client.get("/api/v1/messages")).status_code == 200


# Being mounted


async def test_mounted_in_a_service_it_works_and_keeps_its_key(app: FastAPI) -> None:
    service = FastAPI()
    service.mount("/crm", app)
    async with client_of(service) as client, client_of(service, None) as stranger:
        about = (await stranger.get("/crm/")).json()
        assert about["about"] == "This is the development CRM, not a real one."
        assert (await stranger.get(about["docs"])).status_code == 200
        assert (await stranger.get(about["openapi"])).json()["info"]["title"] == "Development CRM"
        assert (await client.get(f"/crm/api/v1/contacts/{LAURA}")).status_code == 200
        assert_problem(await stranger.get(f"/crm/api/v1/contacts/{LAURA}"), 401, "unauthorized")
        assert_problem(await client.get(f"/crm/api/v1/contacts/{uuid4()}"), 404, "not_found")


async def test_the_docs_describe_the_error_bodies_and_the_key(reader: httpx.AsyncClient) -> None:
    document = (await reader.get("/openapi.json")).json()
    operation = document["paths"]["/api/v1/messages"]["post"]
    assert operation["security"] == [{"HTTPBearer": []}]
    assert {"201", "401", "404", "409", "422", "429", "503"} <= set(operation["responses"])
    refused = operation["responses"]["422"]["content"]["application/json"]["schema"]
    assert refused == {"$ref": "#/components/schemas/Problem"}
