"""The memory's gRPC client and server, when something fails between them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from pydantic import SecretStr

from core.errors import MemoryRefused, MemoryUnavailable, NotFound, StartupError
from core.memory import Memory, Scope, SearchResult, StrategyChoice
from memory.grpc_client import RemoteMemory, connect_memory
from memory.grpc_server import serve_memory
from memory.proto import memory_pb2 as pb
from memory.proto.memory_pb2_grpc import (
    MemoryServiceServicer,
    MemoryServiceStub,
    add_MemoryServiceServicer_to_server,
)
from tests.support.certificates import Certificates, make_certificates
from tests.support.crm_faults import closed_port
from tests.support.memory_grpc import ANA, ScriptedMemory, make_message, memory_settings, over_grpc
from tests.support.waiting import until

T = TypeVar("T")

AWAY = MemoryUnavailable("The memory's database cannot be reached; try again later")
# Longer than any test takes.
LONG = 3_600.0


@asynccontextmanager
async def client_of(address: str, **settings: Any) -> AsyncIterator[RemoteMemory]:
    async with connect_memory(memory_settings(grpc_target=address, **settings)) as remote:
        yield remote


async def fault(call: Awaitable[object]) -> MemoryUnavailable:
    with pytest.raises(MemoryUnavailable) as caught:
        await call
    return caught.value


async def once_it_is_back(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except MemoryUnavailable:
            await asyncio.sleep(0.01)


# Away


async def test_a_service_starts_without_its_memory() -> None:
    async with client_of(f"127.0.0.1:{closed_port()}") as remote:
        error = await fault(remote.recent(ANA))
        assert error.message == "the memory cannot be reached"
        assert error.details == {"grpc_status": "UNAVAILABLE"}
        assert (await fault(remote.check_health())).message == "the memory cannot be reached"


async def test_an_unknown_host_name_is_an_unavailable_memory() -> None:
    async with client_of("memory.invalid:50051", grpc_timeout_seconds=1) as remote:
        assert (await fault(remote.recent(ANA))).details["grpc_status"] in {
            "UNAVAILABLE",
            "DEADLINE_EXCEEDED",
        }


async def test_a_memory_that_starts_later_is_found() -> None:
    port = closed_port()
    async with client_of(f"127.0.0.1:{port}", grpc_rest_seconds=0.01) as remote:
        await fault(remote.recent(ANA))
        async with serve_memory(ScriptedMemory(), memory_settings(serve_port=port)):
            assert await once_it_is_back(lambda: remote.recent(ANA)) == []
            await remote.check_health()


async def test_a_memory_that_restarts_is_found_again() -> None:
    port = closed_port()
    settings = memory_settings(serve_port=port)
    async with client_of(f"127.0.0.1:{port}", grpc_rest_seconds=0.01) as remote:
        for _ in range(2):
            async with serve_memory(ScriptedMemory(), settings, grace_seconds=0):
                assert await once_it_is_back(lambda: remote.add_messages(ANA, [make_message("m1")])) == 1
            await fault(remote.recent(ANA))


async def test_a_memory_killed_during_a_call_is_unavailable() -> None:
    memory = ScriptedMemory(gate=asyncio.Event())
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve_memory(memory, memory_settings(), grace_seconds=0))
        async with client_of(address, grpc_max_attempts=1) as remote:
            call = asyncio.create_task(remote.search(ANA, "x"))
            await memory.entered.wait()
            await stack.aclose()
            await fault(call)
    assert memory.cancelled == ["search"]


async def test_a_stopping_memory_lets_calls_in_progress_finish() -> None:
    memory = ScriptedMemory(gate=asyncio.Event())
    assert memory.gate
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve_memory(memory, memory_settings(), grace_seconds=60))
        async with client_of(address) as remote:
            call = asyncio.create_task(remote.add_messages(ANA, [make_message("m1")]))
            await memory.entered.wait()
            stopping = asyncio.create_task(stack.aclose())
            await asyncio.sleep(0)
            memory.gate.set()
            assert await call == 1
            await stopping


# Again


async def test_a_call_is_repeated_after_a_short_outage() -> None:
    memory = ScriptedMemory()
    memory.faults.extend([AWAY, AWAY])
    async with over_grpc(memory) as remote:
        assert await remote.add_messages(ANA, [make_message("m1")]) == 1
    assert len(memory.calls) == 3
    assert memory.calls[0] == memory.calls[2]


async def test_attempts_are_limited_and_the_last_error_is_raised() -> None:
    memory = ScriptedMemory()
    memory.faults.extend([AWAY] * 10)
    async with over_grpc(memory, grpc_max_attempts=4) as remote:
        assert (await fault(remote.recent(ANA))).message == AWAY.message
    assert len(memory.calls) == 4


async def test_no_attempt_begins_after_the_time_limit() -> None:
    memory = ScriptedMemory()
    memory.faults.extend([AWAY] * 10)
    async with over_grpc(memory, grpc_max_attempts=10, grpc_timeout_seconds=0.2) as remote:
        began = asyncio.get_running_loop().time()
        await fault(remote.recent(ANA))
        assert asyncio.get_running_loop().time() - began < 2
    assert len(memory.calls) < 10


class Broken(MemoryServiceServicer):
    """Breaks off its list after the first page, once."""

    def __init__(self) -> None:
        self.calls = 0

    async def ListRecentMessages(  # noqa: N802 - the proto's name
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        self.calls += 1
        for name in ("m1", "m2"):
            if (self.calls, name) == (1, "m2"):
                await context.abort(StatusCode.UNAVAILABLE, "killed")
            message = pb.Message(id=name, role=pb.ROLE_NOTE, session_id="s1")
            message.at.GetCurrentTime()
            yield pb.ListRecentMessagesResponse(messages=[message])


async def test_an_interrupted_list_is_requested_again_from_the_start() -> None:
    broken = Broken()  # type: ignore[abstract]  # the generated class answers UNIMPLEMENTED
    async with served_by(broken) as address, client_of(address) as remote:
        assert [message.id for message in await remote.recent(ANA)] == ["m1", "m2"]


@asynccontextmanager
async def served_by(servicer: MemoryServiceServicer | None) -> AsyncIterator[str]:
    """A gRPC server of another kind."""
    server = aio.server()
    if servicer:
        add_MemoryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


# Slow


async def test_a_slow_call_ends_at_the_time_limit_and_is_cancelled_on_the_server() -> None:
    memory = ScriptedMemory(gate=asyncio.Event())
    async with over_grpc(memory, grpc_timeout_seconds=0.1) as remote:
        error = await fault(remote.search(ANA, "x"))
        assert error.message == "the memory did not answer in time"
        assert error.details == {"grpc_status": "DEADLINE_EXCEEDED"}
        await until(lambda: memory.cancelled == ["search"])
    assert len(memory.calls) == 1


async def test_erasing_has_a_time_limit_of_its_own() -> None:
    memory = ScriptedMemory(gate=asyncio.Event())
    async with over_grpc(memory, grpc_timeout_seconds=LONG, grpc_forget_timeout_seconds=0.1) as remote:
        assert (await fault(remote.forget(ANA))).message == "the memory did not answer in time"


async def test_a_silent_server_is_waited_for_up_to_the_time_limit() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with client_of(address, grpc_timeout_seconds=0.2) as remote:
        assert (await fault(remote.recent(ANA))).details["grpc_status"] in {
            "UNAVAILABLE",
            "DEADLINE_EXCEEDED",
        }
    listener.close()


async def test_a_cancelled_call_is_cancelled_on_the_server() -> None:
    memory = ScriptedMemory(gate=asyncio.Event())
    async with over_grpc(memory) as remote:
        call = asyncio.create_task(remote.recent(ANA))
        await memory.entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: memory.cancelled == ["recent"])


# At rest


async def test_an_unavailable_memory_slows_down_only_two_messages() -> None:
    memory = ScriptedMemory()
    memory.faults.extend([AWAY] * 100)
    async with over_grpc(memory, grpc_max_attempts=1, grpc_rest_seconds=LONG) as remote:
        for _ in range(2):
            assert (await fault(remote.recent(ANA))).message == AWAY.message
        error = await fault(remote.search(ANA, "x"))
        assert "not called for the moment" in error.message
        assert error.retry_after == pytest.approx(LONG, abs=60)
    assert len(memory.calls) == 2


async def test_after_a_rest_an_unhealthy_memory_is_not_called() -> None:
    port = closed_port()
    memory = ScriptedMemory()
    settings = {"grpc_max_attempts": 1, "grpc_rest_seconds": 0.001}
    async with client_of(f"127.0.0.1:{port}", **settings) as remote:
        for _ in range(5):
            await fault(remote.recent(ANA))
        async with serve_memory(memory, memory_settings(serve_port=port)):
            await once_it_is_back(lambda: remote.recent(ANA))
    assert len(memory.calls) == 1


async def test_a_refusal_shows_that_the_memory_is_reachable() -> None:
    memory = ScriptedMemory()
    memory.faults.extend([AWAY, MemoryRefused("no"), AWAY])
    async with over_grpc(memory, grpc_max_attempts=1, grpc_rest_seconds=LONG) as remote:
        for kind in (MemoryUnavailable, MemoryRefused, MemoryUnavailable):
            with pytest.raises(kind):
                await remote.recent(ANA)
        assert await remote.recent(ANA) == []


# Errors


async def test_errors_arrive_with_the_servers_message_and_details() -> None:
    memory = ScriptedMemory()
    memory.faults.extend(
        [
            MemoryRefused("limite inválido", details={"limit": 0}),
            NotFound("no such thing", details={"thing": "x"}),
            MemoryRefused("long", details={"what": "x" * 100_000}),
        ]
    )
    async with over_grpc(memory) as remote:
        with pytest.raises(MemoryRefused, match="limite inválido") as refused:
            await remote.recent(ANA)
        with pytest.raises(NotFound, match="no such thing") as missing:
            await remote.query_graph(ANA, "x")
        with pytest.raises(MemoryRefused, match="long"):
            await remote.forget(ANA)
    assert (refused.value.details, missing.value.details) == ({"limit": 0}, {"thing": "x"})


async def test_a_bug_in_the_memory_is_not_disclosed() -> None:
    memory = ScriptedMemory()
    memory.faults.append(ValueError("password hunter2"))
    async with over_grpc(memory) as remote:
        error = await fault(remote.recent(ANA))
    assert error.details == {"grpc_status": "INTERNAL"}
    assert "hunter2" not in error.message
    assert len(memory.calls) == 1


async def test_a_missing_method_is_reported_as_another_version() -> None:
    async with served_by(None) as address, client_of(address) as remote:
        for _ in range(5):
            assert "another version" in (await fault(remote.recent(ANA))).message
        await remote.check_health()


async def test_another_kind_of_server_is_not_a_memory() -> None:
    server = aio.server()
    add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with client_of(f"127.0.0.1:{port}") as remote:
        assert (await fault(remote.check_health())).message == "the memory reports that it is not serving"
    await server.stop(0)


class Newer(MemoryServiceServicer):
    """Responds with values that the client does not know."""

    async def Search(  # noqa: N802 - the proto's name
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        hit = pb.Hit(kind=99)  # type: ignore[arg-type]  # open enums: what a later version may send
        hit.at.GetCurrentTime()
        yield pb.SearchResponse(hits=[hit])

    async def ListRecentMessages(  # noqa: N802 - the proto's name
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        yield pb.ListRecentMessagesResponse(messages=[pb.Message(id="m1", role=pb.ROLE_NOTE)])


async def test_an_unreadable_response_is_reported_as_another_version() -> None:
    newer = Newer()  # type: ignore[abstract]  # the generated class answers UNIMPLEMENTED
    async with served_by(newer) as address, client_of(address) as remote:
        for call in (remote.search(ANA, "x"), remote.recent(ANA)):
            assert "another version" in (await fault(call)).message


async def test_a_request_that_is_too_large_is_not_sent() -> None:
    memory = ScriptedMemory()
    async with over_grpc(memory) as remote:
        with pytest.raises(MemoryRefused, match="send it in parts"):
            await remote.add_messages(ANA, [make_message("m1", "x" * (33 * 1024 * 1024))])
    assert memory.calls == []


# What other clients may send


@asynccontextmanager
async def stub_of(memory: Memory) -> AsyncIterator[Any]:
    async with (
        serve_memory(memory, memory_settings(), grace_seconds=0) as address,
        aio.insecure_channel(address) as channel,
    ):
        yield MemoryServiceStub(channel)


SCOPE = pb.Scope(tenant="acme", contact_id="ana")


async def test_unset_fields_have_the_defaults_of_the_proto() -> None:
    memory = ScriptedMemory()
    async with stub_of(memory) as stub:
        [_ async for _ in stub.Search(pb.SearchRequest(scope=SCOPE, query="x"))]
        [_ async for _ in stub.Search(pb.SearchRequest(scope=SCOPE, query="x", limit=0))]
        [_ async for _ in stub.QueryGraph(pb.QueryGraphRequest(scope=SCOPE, node="n"))]
        [_ async for _ in stub.ListRecentMessages(pb.ListRecentMessagesRequest(scope=SCOPE))]
        [_ async for _ in stub.Recall(pb.RecallRequest(scope=SCOPE, agent="a"))]
        [_ async for _ in stub.ListNotes(pb.ListNotesRequest(scope=SCOPE))]
    named = [call[2] for call in memory.calls]
    assert named[0] == {"strategy": "general", "limit": 10, "as_of": None}
    assert named[1]["limit"] == 0
    assert named[2] == {"edge_type": "", "depth": 1, "as_of": None, "believed_at": None}
    assert named[3] == {"session_id": "", "limit": 20}
    assert named[4] == {"agent": "a", "limit": 10}
    assert named[5] == {"type": None, "agent": "", "limit": 100}


async def test_an_unset_scope_is_refused() -> None:
    memory = ScriptedMemory()
    async with stub_of(memory) as stub:
        await stub.Forget(pb.ForgetRequest())
    assert memory.calls[0][1] == (Scope("", ""),)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pb.Message(id="m1", role=pb.ROLE_NOTE), "Message.at must be set"),
        (pb.Message(id="m1"), "role 0 is not known"),
    ],
)
async def test_a_message_that_cannot_be_converted_is_refused_with_a_reason(
    message: pb.Message, words: str
) -> None:
    async with stub_of(ScriptedMemory()) as stub:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.AddMessages(pb.AddMessagesRequest(scope=SCOPE, messages=[message]))
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert words in str(caught.value.details())


async def test_an_unknown_intent_is_reported_as_another_version() -> None:
    newer = ScriptedMemory({"route": StrategyChoice(strategy="poetry", confidence=1.0)})  # type: ignore[arg-type]
    async with over_grpc(newer) as remote:
        with pytest.raises(MemoryUnavailable, match="of another version"):
            await remote.route(ANA, make_message("m1"))


# Who may ask


@pytest.mark.parametrize("sent", [None, SecretStr("another-token"), SecretStr("a-token-and-more")])
async def test_a_wrong_token_is_refused_and_not_retried(sent: SecretStr | None) -> None:
    memory = ScriptedMemory()
    token = SecretStr("a-token")
    async with (
        serve_memory(memory, memory_settings(grpc_token=token), grace_seconds=0) as address,
        client_of(address, grpc_token=sent) as remote,
    ):
        for call in (remote.recent(ANA), remote.add_messages(ANA, [make_message("m1")])):
            error = await fault(call)
            assert error.message == "the memory does not accept MEMORY_GRPC_TOKEN"
            assert error.details == {"grpc_status": "UNAUTHENTICATED"}
            assert "a-token" not in str(error)
        await remote.check_health()
    assert memory.calls == []


async def test_the_right_token_is_accepted() -> None:
    async with over_grpc(ScriptedMemory(), grpc_token=SecretStr("a-token")) as remote:
        assert await remote.add_messages(ANA, [make_message("m1")]) == 1
        assert isinstance(await remote.search(ANA, "x"), SearchResult)


# TLS


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.fixture
async def guarded(certificates: Certificates) -> AsyncIterator[str]:
    """Yield the address of a memory served over TLS."""
    settings = memory_settings(serve_cert_file=certificates.certificate, serve_key_file=certificates.key)
    async with serve_memory(ScriptedMemory(), settings, grace_seconds=0) as address:
        yield address


async def test_over_tls_a_server_of_a_trusted_authority_is_accepted(
    guarded: str, certificates: Certificates
) -> None:
    async with client_of(guarded, grpc_ca_file=certificates.authority) as remote:
        await remote.check_health()
        assert await remote.add_messages(ANA, [make_message("m1")]) == 1


@pytest.mark.parametrize("settings", [{"grpc_tls": True}, {}], ids=["the public authorities", "no TLS"])
async def test_over_tls_a_server_of_an_untrusted_authority_is_refused(
    guarded: str, settings: dict[str, Any]
) -> None:
    async with client_of(guarded, **settings) as remote:
        assert (await fault(remote.recent(ANA))).message == "the memory cannot be reached"


async def test_a_server_of_another_authority_is_refused(guarded: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    async with client_of(guarded, grpc_ca_file=other.authority) as remote:
        assert (await fault(remote.recent(ANA))).message == "the memory cannot be reached"


# What cannot start


async def test_a_port_in_use_is_reported() -> None:
    async with serve_memory(ScriptedMemory(), memory_settings()) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(StartupError, match="MEMORY_SERVE_PORT"):
            async with serve_memory(ScriptedMemory(), memory_settings(serve_port=port)):
                raise AssertionError("it shares the port")


async def test_an_unusable_certificate_is_reported(tmp_path: Path, certificates: Certificates) -> None:
    empty, other = tmp_path / "empty.pem", tmp_path / "other"
    empty.write_text("")
    other.mkdir()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"serve_cert_file": certificates.certificate}, "set both"),
        ({"serve_key_file": certificates.key}, "set both"),
        ({"serve_cert_file": empty, "serve_key_file": certificates.key}, "must be a certificate and its"),
        (
            {
                "serve_cert_file": certificates.certificate,
                "serve_key_file": make_certificates(other).key,
            },
            "must be a certificate and its",
        ),
        (
            {"serve_cert_file": certificates.certificate, "serve_key_file": tmp_path / "none"},
            "cannot read MEMORY_SERVE_KEY_FILE",
        ),
    ]
    for settings, words in wrong:
        with pytest.raises(StartupError, match=words):
            async with serve_memory(ScriptedMemory(), memory_settings(**settings)):
                raise AssertionError("it serves")


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
async def test_unreadable_authorities_are_reported(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartupError, match="MEMORY_GRPC_CA_FILE"):
        async with client_of("127.0.0.1:1", grpc_ca_file=file):
            raise AssertionError("it calls")


async def test_a_server_without_a_token_listens_on_the_loopback_interface_only() -> None:
    settings = memory_settings(serve_host="0.0.0.0")
    with pytest.raises(StartupError, match="needs MEMORY_GRPC_TOKEN"):
        async with serve_memory(ScriptedMemory(), settings):
            raise AssertionError("it serves")


async def test_concurrent_calls_get_their_own_responses() -> None:
    async with over_grpc(ScriptedMemory()) as remote:
        numbers = range(200)
        calls = (remote.add_messages(ANA, [make_message(f"m{n}")] * n) for n in numbers)
        assert await asyncio.gather(*calls) == list(numbers)
