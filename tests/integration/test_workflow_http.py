"""Outgoing requests: allowed hosts only, pinned addresses, and secrets that go to their host only."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from core.context import Actor, act_as
from core.effects import UnrecordedEffects
from core.errors import StepFailed
from core.outgoing import GuardedTransport, is_public
from core.postgres import Pool
from core.settings import AllowedHost, WorkflowSettings
from nodes.workflow.executors import build_api_call
from service.audit.idempotency import RecordedEffects
from tests.support.certificates import make_certificates
from tests.support.workflow_calls import step_call
from tests.support.workflow_server import CountingServer, counting_server
from workflows.http import WorkflowHttpClient, open_http
from workflows.steps import ApiCall


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[CountingServer]:
    async with counting_server() as running:
        yield running


@pytest.fixture(scope="module")
async def http(server: CountingServer) -> AsyncIterator[WorkflowHttpClient]:
    secrets = json.dumps({f"{server.host}/token": "Bearer s3cr3t-value", "other.example/token": "x"})
    settings = WorkflowSettings(
        allowed_hosts=f"{server.host}, public.example, split.example", secrets=SecretStr(secrets)
    )

    def crm(request: httpx.Request) -> httpx.Response:
        seen = {"path": request.url.path, "key": request.headers["authorization"]}
        stream = httpx.ByteStream(json.dumps(seen).encode())
        return httpx.Response(200, headers={"Content-Type": "application/json"}, stream=stream)

    client = httpx.AsyncClient(
        transport=httpx.MockTransport(crm), base_url="http://crm", headers={"Authorization": "Bearer crm"}
    )
    async with client, open_http(settings, client) as opened:
        yield opened


async def ask(http: WorkflowHttpClient, url: str, **step: Any) -> Any:
    model = ApiCall.model_validate(
        {"id": "call", "type": "api_call", "url": url, "backoff_seconds": 0, **step}
    )
    return await build_api_call(http, UnrecordedEffects())(
        model, step_call(input={"who": "Ana & co", "n": 3})
    )


async def test_a_request_is_rendered_and_carries_its_idempotency_key(
    http: WorkflowHttpClient, server: CountingServer
) -> None:
    answer = await ask(
        http,
        f"{server.url}/echo/{{{{ input.who }}}}",
        method="POST",
        query={"n": "{{ input.n }}", "none": "{{ input.none }}"},
        headers={"X-Who": "{{ input.who }}"},
        secret_headers={"Authorization": "token"},
        body={"n": "{{ input.n }}"},
    )
    seen = answer["body"]
    assert answer["status"] == 200
    assert (seen["path"], seen["query"], seen["body"]) == ("/echo/Ana%20%26%20co", "n=3", {"n": 3})
    assert seen["headers"]["idempotency-key"] == "run:step"
    assert seen["headers"]["x-who"] == "Ana & co"
    # It was sent, and what the server says of it is not kept.
    assert server.authorization == "Bearer s3cr3t-value"
    assert "s3cr3t" not in json.dumps(answer)


async def test_a_request_is_retried_with_the_same_idempotency_key(
    http: WorkflowHttpClient, server: CountingServer
) -> None:
    server.calls.clear()
    answer = await ask(http, f"{server.url}/flaky/2", method="POST")
    assert answer["status"] == 200
    assert server.calls == {"run:step": 3}
    with pytest.raises(StepFailed, match="answered with 503") as caught:
        await ask(http, f"{server.url}/flaky/9", attempts=2)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("path", "step", "why"),
    [
        ("/status/404", {}, "answered with 404"),
        ("/redirect", {}, "answered with 307; redirects are not followed"),
        ("/large/5000", {"response_limit_bytes": 4_999}, "more than 4,999 bytes"),
        ("/gzip", {}, "compressed its response"),
        ("/broken-json", {}, "claims to be JSON and is not"),
        ("/slow", {"timeout_seconds": 0.05, "attempts": 1}, "did not answer in 0.05 s"),
        ("/trickle", {"timeout_seconds": 0.2, "attempts": 1}, "did not answer in 0.2 s"),
        ("/status/200", {"secret_headers": {"X-Key": "unknown"}}, "WORKFLOW_SECRETS has no"),
        ("/status/200", {"expected_status": [201]}, "answered with 200"),
    ],
)
async def test_an_unexpected_response_fails_the_step(
    http: WorkflowHttpClient, server: CountingServer, path: str, step: dict[str, Any], why: str
) -> None:
    with pytest.raises(StepFailed, match=why):
        await ask(http, server.url + path, **step)


async def test_the_crm_is_called_with_its_own_api_key(http: WorkflowHttpClient) -> None:
    answer = await ask(http, "crm:/contacts/{{ input.who }}")
    assert answer["body"] == {"path": "/api/v1/contacts/Ana & co", "key": "Bearer crm"}
    for escape in ("crm:/../admin", "crm:/contacts/%2e%2e/admin", "crm:/contacts%2F..%2Fadmin"):
        with pytest.raises(StepFailed, match="must not hold"):
            await ask(http, escape)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "contacts/c-1/orders?limit=5", True),
        ("POST", "messages", True),
        ("PATCH", "contacts/c-1/profile", True),
        # A discount waits for a person elsewhere; nothing is deleted; other resources are not theirs.
        ("PATCH", "contacts/c-1/opportunities/o-1", False),
        ("PATCH", "contacts/c-1%2Fopportunities%2Fo-1/profile", False),
        ("POST", "contacts/c-1/handoffs", False),
        ("DELETE", "contacts/c-1", False),
        ("GET", "users", False),
        ("GET", "messages/all", False),
    ],
)
async def test_the_crms_key_is_sent_with_the_requests_that_the_operator_allows_only(
    http: WorkflowHttpClient, method: str, path: str, allowed: bool
) -> None:
    call = ask(http, f"crm:/{path}", method=method)
    if allowed:
        assert (await call)["status"] == 200
    else:
        with pytest.raises(StepFailed, match="WORKFLOW_CRM_REQUESTS"):
            await call


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/",
        "http://public.example/",
        "https://public.example:8443/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://public.example.elsewhere.example/",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
async def test_addresses_outside_the_allowed_hosts_are_rejected(http: WorkflowHttpClient, url: str) -> None:
    with pytest.raises(StepFailed, match="is not an allowed host"):
        await ask(http, url)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "fe80::1",
    ],
)
async def test_a_public_name_with_a_private_address_is_rejected(
    http: WorkflowHttpClient, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert not is_public(ip_address(address))
    resolving(monkeypatch, ["93.184.216.34", address])
    with pytest.raises(StepFailed, match="not public"):
        await ask(http, "https://split.example/")


async def test_the_connection_uses_the_address_that_was_checked(
    http: WorkflowHttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers otherwise the second time (DNS rebinding) is asked once."""
    asked = resolving(monkeypatch, ["203.0.113.1"], then=["127.0.0.1"], public=True)
    with pytest.raises(StepFailed, match=r"cannot be reached|did not answer"):
        await ask(http, "https://public.example/", attempts=1, timeout_seconds=0.2)
    assert asked.count("public.example") == 1


async def test_a_certificate_must_match_the_name_and_not_the_address(tmp_path: Path) -> None:
    """The connection is made to an address; what it must prove is the name that was allowed."""
    certificates = make_certificates(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificates.certificate, certificates.key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving) as server:
        port = server.sockets[0].getsockname()[1]
        allowed = [AllowedHost("127.0.0.1", port), AllowedHost("localhost", port)]
        guard = GuardedTransport(allowed, ssl.create_default_context(cafile=certificates.authority))
        async with httpx.AsyncClient(transport=guard) as client:
            assert (await client.get(f"https://127.0.0.1:{port}/")).text == "ok"
            # The certificate is for 127.0.0.1, which is where localhost is, but not its name.
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"https://localhost:{port}/")


def resolving(
    monkeypatch: pytest.MonkeyPatch, first: list[str], *, then: list[str] | None = None, public: bool = False
) -> list[str]:
    """Have the loop resolve names to these addresses; gives the names it was asked, in order."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()

    async def getaddrinfo(host: Any, port: Any, **_: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        addresses = [name] if name[0].isdigit() else (then if then and asked else first)
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    if public:
        # Documentation's own addresses are not public, and no real one must be called.
        monkeypatch.setattr("core.outgoing.is_public", lambda _: True)
    return asked


def test_allowed_hosts_are_parsed_or_rejected() -> None:
    assert [AllowedHost.parse(text).name for text in ("API.example.com", " localhost:80 ", "[::1]:8080")] == [
        "api.example.com",
        "localhost:80",
        "[::1]:8080",
    ]
    for text in ("", "https://x", "x:0", "x:70000", "x/y", "*.example.com", "a b"):
        with pytest.raises(ValueError, match="is not a host"):
            AllowedHost.parse(text)


async def test_a_request_that_changes_something_is_sent_once(
    http: WorkflowHttpClient, server: CountingServer, pool: Pool
) -> None:
    server.calls.clear()
    act_as(Actor(thread_id="run"))
    executor = build_api_call(http, RecordedEffects(pool))
    for path, method, calls in (("flaky/1", "POST", 2), ("flaky/0", "GET", 2)):
        model = ApiCall(
            id="call", type="api_call", url=f"{server.url}/{path}", method=method, backoff_seconds=0
        )
        asked = replace(step_call(), idempotency_key=f"run:{method}")
        answers = [await executor(model, asked) for _ in range(2)]
        assert answers[0] == answers[1]
        # The first one takes two attempts and is not made again; the second is made each time.
        assert server.calls[f"run:{method}"] == calls
