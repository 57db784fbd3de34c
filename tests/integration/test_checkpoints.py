"""The embedded database, the pool, and what a checkpoint may contain."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ormsgpack
import psutil
import psycopg
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from psycopg.rows import dict_row
from pydantic import BaseModel

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import WatchedPool, open_pool
from core.context import Context, set_context
from core.errors import StartupError
from core.postgres import Connection, Pool
from core.settings import DatabaseSettings
from tests.support.savers import saver_on
from tests.support.waiting import until

PROJECT = Path(__file__).resolve().parents[2]
START = """
import asyncio, sys
from pathlib import Path
from checkpoints.embedded import embedded_postgres_server

async def main():
    async with embedded_postgres_server(Path(sys.argv[1])):
        await asyncio.Event().wait()

asyncio.run(main())
"""
IMPATIENT = DatabaseSettings(connect_timeout_seconds=2)


async def run(url: str, *statements: str) -> list[dict[str, Any]]:
    """Run statements and return the rows of the last one."""
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as connection:
        for statement in statements:
            cursor = await connection.execute(statement.encode())
        return await cursor.fetchall()


async def works(data_dir: Path) -> None:
    """Check that a server starts in the directory and answers."""
    async with embedded_postgres_server(data_dir) as url:
        assert await run(url, "SELECT 1 AS one") == [{"one": 1}]


async def refusal(data_dir: Path) -> str:
    """Return the one-line reason why no server starts in the directory."""
    with pytest.raises(StartupError) as caught:
        await works(data_dir)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


def postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]))


def pid_file(data_dir: Path, *lines: object) -> None:
    """Write a pid file as a power failure leaves it behind."""
    (data_dir / "postgres" / "postmaster.pid").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
async def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("pattern")
    async with embedded_postgres_server(data_dir) as url:
        await run(url, "CREATE TABLE kept AS SELECT 1 AS one", "SELECT 1")
    return data_dir


@pytest.fixture
async def used(pattern: Path, tmp_path: Path) -> Path:
    """Return a data directory of a server that was stopped properly."""
    copying = await asyncio.create_subprocess_exec("cp", "-a", pattern / "postgres", tmp_path)
    assert await copying.wait() == 0
    return tmp_path


async def kept(data_dir: Path) -> bool:
    async with embedded_postgres_server(data_dir) as url:
        return await run(url, "SELECT one FROM kept") == [{"one": 1}]


# The embedded server


async def test_each_test_has_a_migrated_database_of_its_own(pool: Pool) -> None:
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT count(*) AS n FROM checkpoints")
        assert await cursor.fetchone() == {"n": 0}


async def test_a_second_service_on_the_same_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    async with embedded_postgres_server(tmp_path):
        assert "in use by another service; stop it or choose another DATA_DIR" in await refusal(tmp_path)


async def test_data_survive_a_restart_and_no_process_is_left_behind(used: Path) -> None:
    for _ in range(2):
        assert await kept(used)
        assert not (used / "postgres" / "postmaster.pid").exists()


async def test_the_server_listens_on_no_port_and_commits_durably(tmp_path: Path) -> None:
    async with embedded_postgres_server(tmp_path) as url:
        shown = await run(
            url,
            "SELECT name, setting FROM pg_settings "
            "WHERE name IN ('listen_addresses', 'fsync', 'full_page_writes', 'synchronous_commit') "
            "ORDER BY name",
        )
        assert [row["setting"] for row in shown] == ["on", "on", "", "on"]
        assert postmaster(tmp_path).net_connections("inet") == []


async def test_a_server_that_was_killed_recovers_at_the_next_start(used: Path) -> None:
    async with embedded_postgres_server(used) as url:
        await run(url, "CREATE TABLE late AS SELECT 2 AS two", "SELECT 1")
        process = postmaster(used)
        process.kill()
        await asyncio.to_thread(process.wait)
        with pytest.raises(psycopg.OperationalError):
            await run(url, "SELECT 1")
    async with embedded_postgres_server(used) as url:
        assert await run(url, "SELECT one, two FROM kept, late") == [{"one": 1, "two": 2}]


@pytest.mark.parametrize(
    "lines",
    [
        (os.getpid(), "/x", 1, 5432, "/tmp", "", "1 2", "ready"),
        (2**22 - 7, "/x", 1, 5432, "/tmp", "", "1 2", "ready"),
        (os.getpid(),),
    ],
    ids=["another process", "no process", "cut off"],
)
async def test_a_stale_pid_file_does_not_prevent_a_start(used: Path, lines: tuple[object, ...]) -> None:
    pid_file(used, *lines)
    assert await kept(used)


@pytest.mark.parametrize("lines", [(), ("garbage",), (-5, "/x")], ids=repr)
async def test_an_unreadable_pid_file_does_not_prevent_a_start(used: Path, lines: tuple[object, ...]) -> None:
    pid_file(used, *lines)
    assert await kept(used)


async def test_a_stale_pid_of_another_services_server_leaves_that_server_alone(
    used: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    async with embedded_postgres_server(other) as url:
        cluster = used / "postgres"
        pid_file(used, postmaster(other).pid, cluster, 1, 5432, cluster, "", "1 2", "ready")
        try:
            assert await kept(used)
        finally:
            (cluster / "postmaster.pid").unlink(missing_ok=True)
        assert await run(url, "SELECT 1 AS one") == [{"one": 1}]


async def test_an_interrupted_first_start_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "global").mkdir(parents=True)
    (tmp_path / "postgres" / "postgresql.conf").write_text("half a li")
    await works(tmp_path)


async def test_a_first_start_that_was_killed_is_repeated(tmp_path: Path) -> None:
    starting = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        "-c",
        START,
        str(tmp_path),
        cwd=PROJECT,
        start_new_session=True,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    # Postgres has begun to fill its catalogue: the longest part of initdb.
    await _until(lambda: any(tmp_path.glob("*/base/1/*")))
    os.killpg(starting.pid, signal.SIGKILL)
    await starting.wait()
    await works(tmp_path)


async def test_data_of_another_version_are_refused_and_left_unchanged(used: Path) -> None:
    version = used / "postgres" / "PG_VERSION"
    ours = version.read_text()
    version.write_text("14\n")
    said = await refusal(used)
    assert f"was created by PostgreSQL 14, and this service ships {ours.strip()}" in said
    assert "dump it with the old version, or choose another DATA_DIR" in said
    version.write_text(ours)
    assert await kept(used)


async def test_a_data_directory_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write DATA_DIR" in await refusal(tmp_path / "file" / "data")


@pytest.mark.parametrize("name", ["service.lock/", "postgres"])
async def test_a_data_directory_that_cannot_be_written_is_reported_in_one_line(
    tmp_path: Path, name: str
) -> None:
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("")
    assert f"cannot write DATA_DIR {str(tmp_path)!r}" in await refusal(tmp_path)


async def test_a_server_that_cannot_start_is_reported_in_one_line(used: Path) -> None:
    with (used / "postgres" / "postgresql.conf").open("a") as configuration:
        configuration.write("shared_buffers = much\n")
    assert "the embedded Postgres did not start: " in await refusal(used)


async def test_a_data_directory_may_have_odd_characters_in_its_name(tmp_path: Path) -> None:
    await works(tmp_path / "-D with spaces; ção; a%20b" / "back\\slash ")


async def test_a_data_directory_may_be_deeper_than_a_socket(used: Path) -> None:
    deep = used.joinpath(*["directory"] * 20)
    deep.mkdir(parents=True)
    (used / "postgres").rename(deep / "postgres")
    assert await kept(deep)


@pytest.mark.parametrize("name", ["it's", 'say "$HOME" `id`'])
async def test_a_data_directory_may_have_quotes_in_its_name(tmp_path: Path, name: str) -> None:
    await works(tmp_path / name)


async def test_the_socket_of_a_deep_directory_is_no_more_open_than_the_directory(used: Path) -> None:
    deep = used.joinpath("d" * 100)
    deep.mkdir()
    (used / "postgres").rename(deep / "postgres")
    async with embedded_postgres_server(deep) as url:
        host = psycopg.conninfo.conninfo_to_dict(url)["host"]
        assert not str(host).startswith(str(deep))
        assert (await asyncio.to_thread(Path(str(host)).stat)).st_mode & 0o077 == 0


# The pool


async def test_an_unreachable_database_is_reported_without_the_password() -> None:
    url = "postgresql://agents:hunter2@127.0.0.1:1/support"
    with pytest.raises(StartupError) as caught:
        async with open_pool(url, IMPATIENT):
            pass
    said = caught.value.message
    assert said.startswith("cannot reach the database at 127.0.0.1:1/support (DATABASE_URL): ")
    assert "Connection refused" in said
    assert len(said.splitlines()) == 1
    assert "hunter2" not in said


async def test_a_database_that_does_not_exist_is_reported(postgres: str) -> None:
    with pytest.raises(StartupError, match='database "nowhere" does not exist'):
        async with open_pool(postgres.replace("/postgres?", "/nowhere?"), IMPATIENT):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://agents:hunter2@[::1/support",
        "postgresql://agents:hunter2%zz@db/support",
        "postgresql://agents:hunter2@db/support?nonsense=1",
    ],
)
async def test_an_address_that_cannot_be_parsed_is_reported_without_the_password(url: str) -> None:
    with pytest.raises(StartupError, match="DATABASE_URL") as caught:
        async with open_pool(url, IMPATIENT):
            pass
    assert len(caught.value.message.splitlines()) == 1
    assert "hunter2" not in caught.value.message
    # Nor where a traceback would print it.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_a_connection_that_was_cut_is_replaced_before_it_is_lent(database_url: str) -> None:
    async with open_pool(database_url, DatabaseSettings(pool_min_size=1, pool_max_size=1)) as pool:
        first = await _backend(pool)
        assert await _backend(pool) == first
        await run(database_url, f"SELECT pg_terminate_backend({first}, 10000) AS done")
        assert await _backend(pool) != first


async def test_a_connection_in_steady_use_is_lent_without_asking_the_server(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Connection] = []
    check = WatchedPool.check_connection

    async def check_and_note(connection: Connection) -> None:
        checked.append(connection)
        await check(connection)

    monkeypatch.setattr(WatchedPool, "check_connection", staticmethod(check_and_note))
    async with open_pool(database_url, DatabaseSettings(pool_min_size=1, pool_max_size=1)) as pool:
        backend = await _backend(pool)
        checked.clear()
        assert await _backend(pool) == backend
        assert not checked
        await run(database_url, f"SELECT pg_terminate_backend({backend}, 10000) AS done")
        assert await _backend(pool) != backend
        assert checked


async def test_more_callers_than_connections_take_turns(database_url: str) -> None:
    async with open_pool(database_url, DatabaseSettings(pool_min_size=0, pool_max_size=2)) as pool:
        backends = await asyncio.gather(*(_backend(pool) for _ in range(50)))
    assert len(set(backends)) <= 2


async def test_a_tenant_gets_a_connection_while_another_keeps_as_many_as_it_can(database_url: str) -> None:
    async with open_pool(database_url, DatabaseSettings(pool_min_size=0, pool_max_size=4)) as pool:
        is_over = asyncio.Event()

        async def keep(tenant: str) -> None:
            set_context(Context(tenant=tenant))
            async with pool.connection():
                await is_over.wait()

        async def ask(tenant: str) -> int:
            set_context(Context(tenant=tenant))
            return await _backend(pool)

        await asyncio.create_task(ask("b"))
        flood = [asyncio.create_task(keep("a")) for _ in range(20)]
        await until(lambda: pool.get_stats()["requests_waiting"] == 18)
        assert await asyncio.create_task(ask("b"))
        is_over.set()
        await asyncio.gather(*flood)
        assert pool.get_stats()["requests_waiting"] == 0


# What a checkpoint may hold


class Imported(BaseModel):
    """Fails when it is constructed."""

    made: int

    def __init__(self, **values: Any) -> None:
        raise AssertionError("a checkpoint made this")


def called(*_: object) -> None:
    raise AssertionError("a checkpoint called this")


# LangGraph's kinds of extension: (module, name, arguments[, method]).
BY_ONE, BY_POSITION, BY_KEYWORD, BY_METHOD, BY_MODEL_V1, BY_MODEL = range(6)
FOREIGN: dict[str, tuple[int, tuple[Any, ...]]] = {
    "a call by position": (BY_POSITION, ("os", "system", ["echo made"])),
    "a call with one": (BY_ONE, (__name__, "called", "x")),
    "a call by keyword": (BY_KEYWORD, (__name__, "called", {"x": 1})),
    "a method": (BY_METHOD, ("pathlib", "Path", "x", "cwd")),
    "a model": (BY_MODEL, (__name__, "Imported", {"made": 1}, "model_validate_json")),
    "a model of version 1": (BY_MODEL_V1, (__name__, "Imported", {"made": 1})),
    "a module that is not imported yet": (BY_ONE, ("this", "c", 1)),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_checkpoint_that_names_foreign_code_runs_none_of_it(pool: Pool, name: str) -> None:
    kind, named = FOREIGN[name]
    blob = ormsgpack.packb(ormsgpack.Ext(kind, ormsgpack.packb(named)))
    assert "this" not in sys.modules
    read = await _channel(pool, "msgpack", blob)
    assert not isinstance(read, Imported)
    assert read is None or isinstance(read, (str, int, list, dict)), read
    assert "this" not in sys.modules


async def test_a_pickle_in_a_checkpoint_is_not_opened(pool: Pool) -> None:
    with pytest.raises(NotImplementedError, match="pickle"):
        await _channel(pool, "pickle", b"cos\nsystem\n(S'echo made'\ntR.")


async def test_the_products_own_values_are_read_back_unchanged(pool: Pool) -> None:
    saver = await saver_on(pool)
    value = {
        "messages": [HumanMessage("Olá \x00 ✓", id="m1")],
        "numbers": [1, 2.5, None],
        "text": "x" * 100_000,
    }
    stored = saver.serde.dumps_typed(value)
    assert await _channel(pool, *stored) == value


async def test_savers_may_be_opened_repeatedly_and_concurrently(pool: Pool) -> None:
    await asyncio.gather(*(saver_on(pool) for _ in range(4)))


async def _channel(pool: Pool, kind: str, blob: bytes) -> Any:
    """Return a channel's value, read from a row with this content."""
    saver = await saver_on(pool)
    config: RunnableConfig = {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}
    checkpoint = empty_checkpoint()
    checkpoint["channel_versions"] = {"value": "1"}
    checkpoint["channel_values"] = {"value": ["placeholder"]}
    await saver.aput(config, checkpoint, {}, {"value": "1"})
    async with pool.connection() as connection:
        updated = await connection.execute(
            "UPDATE checkpoint_blobs SET type = %s, blob = %s WHERE thread_id = 't1'", (kind, blob)
        )
        assert updated.rowcount == 1
    found = await saver.aget_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]["value"]


async def _backend(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT pg_backend_pid() AS pid")).fetchone()
    assert row is not None
    pid: int = row["pid"]
    return pid


async def _until(true: Callable[[], bool]) -> None:
    """Wait until a condition holds; the test's time limit ends the wait."""
    await asyncio.to_thread(_look, true)


def _look(true: Callable[[], bool]) -> None:
    while not true():
        pass
