"""The CRM client: against the development CRM, and against a CRM that fails in every way it may."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from core.customer_text import CustomerText
from core.deadline import within
from core.errors import CrmError, CrmRefused, CrmUnauthorized, CrmUnavailable
from core.postgres import Pool
from core.settings import CrmSettings
from dev_crm.app import create_crm
from tests.support.crm_faults import (
    KEY,
    LAURA,
    NOBODY,
    Answer,
    Delayed,
    Dropped,
    LosesFirstAnswer,
    Scripted,
    Silence,
    Trickle,
    closed_port,
    crm_client,
    crm_settings,
    scripted_crm,
    served,
)
from tools.crm import connection as crm_connection
from tools.crm.client import CrmClient, create_http_client
from tools.crm.models import Created, Usage

Call: TypeAlias = Callable[[CrmClient], Awaitable[Any]]

UP = Answer(200, {"status": "operational"})
MADE = Answer(201, {"id": "made-1"})
BUSY = Answer(503, {"message": "busy"})
MANY_REQUESTS = Answer(429, {"message": "slow down"}, {"Retry-After": "0"})
FAILED = Answer(500, "<html>Internal Server Error</html>")


def send_message(crm: CrmClient) -> Awaitable[Created]:
    return crm.send_message(LAURA, text=CustomerText("Use batches."), key="key-1")


def create_ticket(crm: CrmClient) -> Awaitable[Created]:
    return crm.create_engineering_ticket(
        LAURA, title="Export fails", description="Over 40K.", severity="high", key="key-1"
    )


READS: list[Call] = [
    lambda crm: crm.get_contact(LAURA),
    lambda crm: crm.get_contact_overview(LAURA),
    lambda crm: crm.get_subscription(LAURA),
    lambda crm: crm.list_tickets(LAURA),
    lambda crm: crm.search_knowledge_base("export"),
    lambda crm: crm.get_status(),
]
WRITES: list[Call] = [send_message, create_ticket]


@pytest.fixture
def development_crm(pool: Pool) -> FastAPI:
    return create_crm(pool, SecretStr(KEY))


@pytest.fixture
async def crm(development_crm: FastAPI) -> AsyncIterator[CrmClient]:
    async with crm_client(transport=httpx.ASGITransport(development_crm)) as client:
        yield client


async def kept(pool: Pool, table: str) -> list[dict[str, Any]]:
    """The rows agents made."""
    async with pool.connection() as connection:
        cursor = await connection.execute(
            f"SELECT * FROM crm.{table} WHERE source = 'ventros-agents'".encode()
        )
        return await cursor.fetchall()


async def attempts(call: Call, *answers: Scripted, **settings: Any) -> tuple[Any, int]:
    """What a call came to, its error included, and how many requests it took."""
    async with scripted_crm(*answers) as server, crm_client(server.url, **settings) as crm:
        try:
            came_to = await call(crm)
        except CrmError as error:
            came_to = error
        return came_to, len(server.requests)


# What the development CRM answers


async def test_a_contact_is_read(crm: CrmClient) -> None:
    contact = await crm.get_contact(LAURA)
    assert (contact.id, contact.name, contact.company, contact.language) == (
        LAURA,
        "Laura Bennett",
        "Meridian Logistics",
        "en",
    )


async def test_a_subscription_is_read_with_its_usage(crm: CrmClient) -> None:
    subscription = await crm.get_subscription(LAURA)
    assert (subscription.plan, subscription.product_version) == ("Enterprise", "2.3.1")
    assert subscription.usage["contacts"] == Usage(used=48_500, limit=50_000)
    assert subscription.usage["automations"].limit is None


async def test_a_contact_is_read_with_subscription_and_tickets_at_once(crm: CrmClient) -> None:
    overview = await crm.get_contact_overview(LAURA)
    assert overview.name == "Laura Bennett"
    assert overview.subscription == await crm.get_subscription(LAURA)
    assert overview.tickets == (await crm.list_tickets(LAURA)).tickets


async def test_a_crm_that_knows_no_include_is_asked_for_each(development_crm: FastAPI) -> None:
    paths: list[str] = []

    class Plain(httpx.ASGITransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            paths.append(request.url.path)
            request.url = request.url.copy_with(query=None)
            return await super().handle_async_request(request)

    async with crm_client(transport=Plain(development_crm)) as crm:
        overview = await crm.get_contact_overview(LAURA)
    assert overview.subscription is not None
    assert (overview.subscription.plan, overview.tickets[0].title) == (
        "Enterprise",
        "Filtered segment shows fewer contacts than expected",
    )
    contact = f"/api/v1/contacts/{LAURA}"
    assert sorted(paths) == [contact, f"{contact}/subscription", f"{contact}/tickets"]


async def test_tickets_are_read_newest_first(crm: CrmClient) -> None:
    tickets = (await crm.list_tickets(LAURA)).tickets
    assert "Slow CSV import" in [ticket.title for ticket in tickets]
    dates = [ticket.created_at or "" for ticket in tickets]
    assert dates == sorted(dates, reverse=True)


async def test_articles_are_found_by_words_with_any_characters_in_them(crm: CrmClient) -> None:
    assert (await crm.search_knowledge_base("Error 500 & export?")).articles[0].title == (
        "Handling Large Exports"
    )
    assert (await crm.search_knowledge_base("cartão vencido")).articles[0].id == "kb-cobranca-boleto"
    assert (await crm.search_knowledge_base("zzyzx")).articles == []


async def test_the_status_page_is_read(crm: CrmClient) -> None:
    status = await crm.get_status()
    assert status.status == "operational"
    assert "API" in {component.name for component in status.components}
    assert {incident.status for incident in status.incidents} == {"resolved"}


async def test_a_message_is_kept_once_per_key(crm: CrmClient, pool: Pool) -> None:
    first, again = await send_message(crm), await send_message(crm)
    assert first == again
    [row] = await kept(pool, "messages")
    assert (str(row["id"]), str(row["contact_id"]), row["text"], row["from_me"]) == (
        first.id,
        LAURA,
        "Use batches.",
        True,
    )


async def test_an_engineering_ticket_is_kept_once_per_key(crm: CrmClient, pool: Pool) -> None:
    first, again = await create_ticket(crm), await create_ticket(crm)
    assert first == again
    [row] = await kept(pool, "engineering_tickets")
    assert (row["id"], str(row["contact_id"]), row["severity"]) == (first.id, LAURA, "high")


async def test_a_key_that_comes_back_with_another_text_is_refused(crm: CrmClient) -> None:
    await send_message(crm)
    with pytest.raises(CrmRefused, match="another body") as caught:
        await crm.send_message(LAURA, text=CustomerText("Something else."), key="key-1")
    assert caught.value.crm_status == 409


@pytest.mark.parametrize(
    "call",
    [
        *(
            lambda crm, name=name: getattr(crm, name)(NOBODY)
            for name in ("get_contact", "get_contact_overview", "get_subscription", "list_tickets")
        ),
        lambda crm: crm.send_message(NOBODY, text=CustomerText("Hello"), key="key-2"),
        lambda crm: crm.create_engineering_ticket(
            NOBODY, title="t", description="d", severity="low", key="key-3"
        ),
    ],
)
async def test_an_unknown_contact_is_a_refusal_in_the_crms_own_words(crm: CrmClient, call: Call) -> None:
    with pytest.raises(CrmRefused, match=f"There is no contact '{NOBODY}'") as caught:
        await call(crm)
    assert caught.value.crm_status == 404


async def test_text_the_crm_does_not_take_is_a_refusal_that_names_the_field(crm: CrmClient) -> None:
    with pytest.raises(CrmRefused, match="title") as caught:
        await crm.create_engineering_ticket(
            LAURA, title="  ", description="It fails.", severity="low", key="key-1"
        )
    assert caught.value.crm_status == 422


@pytest.mark.parametrize("call", [*READS, *WRITES])
async def test_a_wrong_api_key_raises_its_own_error(development_crm: FastAPI, call: Call) -> None:
    settings = CrmSettings(api_key=SecretStr("wrong"))
    transport = httpx.ASGITransport(development_crm)
    async with create_http_client(settings, "http://crm", transport) as http:
        with pytest.raises(CrmUnauthorized, match="CRM_API_KEY"):
            await call(CrmClient(http, settings))


async def test_a_rate_limited_request_is_repeated_after_the_announced_wait(pool: Pool) -> None:
    # One request a second: the second is told to wait that long, and does.
    app = create_crm(pool, SecretStr(KEY), requests_per_minute=60)
    async with crm_client(transport=httpx.ASGITransport(app)) as crm:
        for _ in range(60):
            await crm.get_status()
        assert (await crm.get_status()).status == "operational"


# What it does about failures


@pytest.mark.parametrize("call", [*READS[-1:], *WRITES])
@pytest.mark.parametrize(
    "failures",
    [
        [MANY_REQUESTS],
        [FAILED, FAILED],
        [BUSY, Answer(502, "Bad Gateway")],
        [Answer(520, "the gateway's own number")],
        [Answer(408, ""), Answer(425, "")],
        [Dropped()],
        [Dropped(b'{"status": "oper')],
        [Dropped(), FAILED],
    ],
    ids=lambda failures: " ".join(str(getattr(each, "status", "dropped")) for each in failures),
)
async def test_a_transient_failure_is_retried(call: Call, failures: list[Scripted]) -> None:
    success = UP if call in READS else MADE
    came_to, requests = await attempts(call, *failures, success)
    assert not isinstance(came_to, CrmError), came_to
    assert requests == len(failures) + 1


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (MANY_REQUESTS, "the CRM answered 429"),
        (FAILED, "the CRM answered 500"),
        (BUSY, "the CRM answered 503"),
        (Answer(501, ""), "the CRM answered 501"),
        (Dropped(), "cannot be reached"),
        (Dropped(b"{"), "cannot be reached"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
async def test_a_lasting_failure_is_unavailable_after_three_attempts(failure: Scripted, said: str) -> None:
    came_to, requests = await attempts(send_message, *[failure] * 4)
    assert type(came_to) is CrmUnavailable
    assert said in came_to.message
    assert requests == 3


async def test_as_many_attempts_are_made_as_set() -> None:
    assert (await attempts(send_message, *[FAILED] * 9, max_attempts=1))[1] == 1
    assert (await attempts(send_message, *[FAILED] * 9, max_attempts=5))[1] == 5


async def test_an_unreachable_crm_is_unavailable() -> None:
    async with crm_client(f"http://127.0.0.1:{closed_port()}") as crm:
        with pytest.raises(CrmUnavailable, match=r"cannot be reached \(ConnectError\)"):
            await crm.get_status()


@pytest.mark.parametrize("answer", [Silence(), Trickle()], ids=["silence", "trickle"])
async def test_a_response_that_never_ends_times_out(answer: Scripted) -> None:
    came_to, requests = await attempts(READS[-1], *[answer] * 3, timeout_seconds=0.1)
    assert type(came_to) is CrmUnavailable
    assert came_to.message == "the CRM did not answer GET /status in time"
    assert requests == 3


async def test_messages_have_a_time_limit_of_their_own() -> None:
    slow = Delayed(MADE)
    limits: dict[str, Any] = {"timeout_seconds": 0.1, "message_timeout_seconds": 60, "max_attempts": 1}
    async with scripted_crm(slow, Silence()) as server, crm_client(server.url, **limits) as crm:
        sending = asyncio.ensure_future(send_message(crm))
        await slow.received.wait()
        with pytest.raises(CrmUnavailable, match="in time"):
            await crm.get_status()
        slow.released.set()
        assert (await sending).id == "made-1"
    impatient: dict[str, Any] = {"timeout_seconds": 60, "message_timeout_seconds": 0.1, "max_attempts": 1}
    came_to, _ = await attempts(send_message, Silence(), **impatient)
    assert isinstance(came_to, CrmUnavailable)


async def test_without_settings_a_message_may_take_15_seconds_and_all_else_10() -> None:
    limits = []

    def answer(request: httpx.Request) -> httpx.Response:
        limits.append((request.url.path, request.extensions["timeout"]["read"]))
        return httpx.Response(201, json={"id": "1", "status": "operational"})

    async with crm_client(transport=httpx.MockTransport(answer)) as crm:
        await send_message(crm)
        await create_ticket(crm)
        await crm.get_status()
    assert limits == [
        ("/api/v1/messages", 15),
        ("/api/v1/engineering-tickets", 10),
        ("/api/v1/status", 10),
    ]


async def test_the_client_waits_as_long_as_retry_after_says_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await attempts(READS[-1], Answer(429, "", {"Retry-After": "1"}), UP)
    assert loop.time() - began >= 1
    # But no longer than a caller can wait, whatever it asks.
    monkeypatch.setattr(crm_connection, "_MAX_PAUSE_SECONDS", 0.01)
    for asked in ("86400", "9" * 400, "-1", "soon", "\xb2", "Wed, 21 Oct 2065 07:28:00 GMT"):
        came_to, requests = await attempts(READS[-1], Answer(503, "", {"Retry-After": asked}), UP)
        assert (came_to.status, requests) == ("operational", 2)


async def test_nobody_waits_for_a_crm_that_asks_for_more_time_than_is_left() -> None:
    with within(20):
        came_to, requests = await attempts(READS[-1], Answer(503, "", {"Retry-After": "86400"}), UP)
    assert (type(came_to), requests) == (CrmUnavailable, 1)


async def test_without_time_the_crm_is_not_called() -> None:
    with within(0):
        came_to, requests = await attempts(READS[-1], UP)
    assert (type(came_to), requests) == (CrmUnavailable, 0)


async def test_a_crm_that_stays_unavailable_is_not_called_for_a_while() -> None:
    async with scripted_crm(*[BUSY] * 3, UP) as server, crm_client(server.url, max_attempts=1) as crm:
        for _ in range(3):
            with pytest.raises(CrmUnavailable, match="503"):
                await crm.get_status()
        assert crm.circuit == "open"
        with pytest.raises(CrmUnavailable, match="not called") as caught:
            await crm.get_contact(LAURA)
        assert len(server.requests) == 3
        assert caught.value.retry_after == pytest.approx(10, abs=1)


async def test_a_hand_off_is_tried_while_the_crm_rests_and_ends_its_rest(development_crm: FastAPI) -> None:
    async with crm_client(transport=httpx.ASGITransport(development_crm)) as crm:
        for _ in range(3):
            with pytest.raises(CrmUnavailable), crm._crm.circuit.call():
                raise CrmUnavailable("away")
        states = [crm.circuit]
        handoff = {"team": "support", "reason": "asked for", "summary": "Help."}
        assert (await crm.hand_over(LAURA, **handoff, key="key-1")).team == "support"
        assert [*states, crm.circuit] == ["open", "closed"]


async def test_after_its_rest_one_request_decides_whether_the_crm_is_called_again() -> None:
    answers = [BUSY] * (3 * 2 + 1)
    async with scripted_crm(*answers, UP) as server, crm_client(server.url, max_attempts=2) as crm:
        for _ in range(3):
            with pytest.raises(CrmUnavailable):
                await crm.get_status()
        crm._crm.circuit._open_until = 0
        with pytest.raises(CrmUnavailable):
            await crm.get_status()
        assert (len(server.requests), crm.circuit) == (7, "open")
        crm._crm.circuit._open_until = 0
        assert (await crm.get_status()).status == "operational"
        assert crm.circuit == "closed"


@pytest.mark.parametrize(
    "answer", [Answer(404, {}), Answer(422, {}), MANY_REQUESTS], ids=lambda it: it.status
)
async def test_a_crm_that_refuses_is_called_again(answer: Answer) -> None:
    async with scripted_crm(*[answer] * 5) as server, crm_client(server.url, max_attempts=1) as crm:
        for _ in range(5):
            with pytest.raises(CrmError):
                await crm.get_status()
        assert (len(server.requests), crm.circuit) == (5, "closed")


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (Answer(401, {"message": "no"}), CrmUnauthorized, "it does not accept CRM_API_KEY"),
        (Answer(403, {"message": "no"}), CrmUnauthorized, "it does not accept CRM_API_KEY"),
        (Answer(404, {"message": "There is no such contact."}), CrmRefused, "There is no such contact."),
        (Answer(404, "<html>"), CrmRefused, "the CRM answered 404"),
        (Answer(404, ["message"]), CrmRefused, "the CRM answered 404"),
        (Answer(422, {"message": "text: too long"}), CrmRefused, "text: too long"),
        (Answer(400, {"error": "bad", "message": ""}), CrmRefused, "the CRM answered 400"),
        (Answer(302, "", {"Location": "http://127.0.0.1:1/"}), CrmError, "is CRM_API_BASE its address?"),
        (Answer(200, "<html>Welcome</html>"), CrmError, "not match its contract"),
        (Answer(200, ""), CrmError, "not match its contract"),
        (Answer(200, {"unexpected": 1}), CrmError, "not match its contract"),
        (Answer(200, [1]), CrmError, "not match its contract"),
        (Answer(200, '{"id": "\\ud800"}'), CrmError, "not match its contract"),
        (Answer(200, "no gzip", {"Content-Encoding": "gzip"}), CrmError, "cannot be decoded"),
    ],
    ids=lambda value: str(getattr(value, "status", getattr(value, "__name__", ""))),
)
@pytest.mark.parametrize("call", [READS[0], *WRITES])
async def test_permanent_failures_are_not_retried(
    call: Call, answer: Answer, kind: type[CrmError], said: str
) -> None:
    came_to, requests = await attempts(call, answer)
    assert type(came_to) is kind
    assert said in came_to.message
    assert requests == 1


async def test_a_refusal_keeps_the_crms_status_for_programs() -> None:
    came_to, _ = await attempts(READS[0], Answer(404, {"message": "no"}))
    assert came_to.details == {"crm_status": 404}


# What is on the wire


async def test_every_request_carries_the_key_and_the_key_is_in_no_error() -> None:
    for call in [*READS, *WRITES]:
        async with scripted_crm(Answer(401, {})) as server, crm_client(server.url) as crm:
            with pytest.raises(CrmUnauthorized) as caught:
                await call(crm)
            assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {KEY}"]
            assert KEY not in f"{caught.value!r} {caught.value.details}"


@pytest.mark.parametrize("call", WRITES)
async def test_each_repeat_of_a_write_is_the_same_request_under_the_same_key(call: Call) -> None:
    answers: list[Scripted] = [Dropped(), FAILED, MADE]
    async with scripted_crm(*answers) as server, crm_client(server.url) as crm:
        await call(crm)
    assert [request.headers["idempotency-key"] for request in server.requests] == ["key-1"] * 3
    first = server.requests[0].body
    assert (first["contact_id"], first["source"]) == (LAURA, "ventros-agents")
    assert [request.body for request in server.requests] == [first] * 3


@pytest.mark.parametrize(
    "contact_id",
    ["a/b", "../status", "a?b=c#d", "a b", "ção", "%2e%2e", "...", "\x00", "\r\nX: y", "a;b,c", "\u202e"],
)
async def test_a_contact_id_with_odd_characters_stays_one_segment_of_the_path(contact_id: str) -> None:
    answer = Answer(404, {"message": "no"})
    async with scripted_crm(answer) as server, crm_client(server.url) as crm:
        with pytest.raises(CrmRefused):
            await crm.get_subscription(contact_id)
    target = server.requests[0].target.split("/")
    assert (target[:4], target[5:]) == (["", "api", "v1", "contacts"], ["subscription"])
    assert unquote(target[4]) == contact_id


@pytest.mark.parametrize("contact_id", ["", ".", ".."])
async def test_a_contact_id_that_would_name_another_path_is_refused_without_a_request(
    contact_id: str,
) -> None:
    for read in (CrmClient.get_contact, CrmClient.get_subscription, CrmClient.list_tickets):

        async def call(crm: CrmClient, read: Any = read) -> Any:
            return await read(crm, contact_id)

        came_to, requests = await attempts(call)
        assert type(came_to) is CrmRefused
        assert requests == 0


@pytest.mark.parametrize("contact_id", ["a/b", "..", "\x00", "\ud800", "x" * 1_000, "x" * 100_000])
async def test_the_development_crm_knows_no_contact_with_an_odd_id(crm: CrmClient, contact_id: str) -> None:
    with pytest.raises(CrmRefused):
        await crm.get_contact(contact_id)


@pytest.mark.parametrize("words", ["half a character \ud800", "x" * 100_000], ids=["surrogate", "long"])
async def test_words_that_cannot_be_sent_are_refused(crm: CrmClient, words: str) -> None:
    with pytest.raises(CrmRefused, match="request to the CRM is not valid"):
        await crm.search_knowledge_base(words)


async def test_a_text_that_cannot_be_sent_is_refused(crm: CrmClient, pool: Pool) -> None:
    with pytest.raises(CrmRefused, match="request to the CRM is not valid"):
        await crm.send_message(LAURA, text=CustomerText("half a character \ud800"), key="key-1")
    assert await kept(pool, "messages") == []


# A write whose answer was lost


@pytest.mark.parametrize(
    ("call", "table"), [(send_message, "messages"), (create_ticket, "engineering_tickets")]
)
async def test_a_write_whose_response_was_lost_is_done_once(
    development_crm: FastAPI, pool: Pool, call: Call, table: str
) -> None:
    app = LosesFirstAnswer(development_crm)
    async with served(app) as url, crm_client(url) as crm:
        made = await call(crm)
    assert app.lost == [201]
    assert [str(row["id"]) for row in await kept(pool, table)] == [made.id]


async def test_the_same_write_from_ten_callers_at_once_is_done_once(
    development_crm: FastAPI, pool: Pool
) -> None:
    async with served(development_crm) as url, crm_client(url) as crm:
        made = await asyncio.gather(*(send_message(crm) for _ in range(10)))
    assert len({each.id for each in made}) == 1
    assert len(await kept(pool, "messages")) == 1


async def test_settings_name_the_key_and_the_limits() -> None:
    settings = crm_settings(timeout_seconds=3)
    async with create_http_client(settings, "http://crm") as http:
        assert http.timeout == httpx.Timeout(3)
        assert KEY not in repr(settings)
        assert KEY not in repr(http.headers)
