"""The saver while Postgres, the pool or a connection fails."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from psycopg_pool import PoolTimeout

from checkpoints.embedded import SYSTEM_USER
from checkpoints.pool import open_pool
from checkpoints.saver import GroupCommitSaver, open_saver
from core.errors import DatabaseUnavailable
from core.postgres import Pool
from core.settings import DatabaseSettings
from tests.support.database import Database, database
from tests.support.savers import saver_on
from tests.support.waiting import until

PATIENT = DatabaseSettings(pool_min_size=1, pool_max_size=4, connect_timeout_seconds=30)
IMPATIENT = DatabaseSettings(pool_min_size=1, pool_max_size=4, connect_timeout_seconds=1)


PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


def thread(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": configurable | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


async def put(saver: GroupCommitSaver, thread_id: str) -> None:
    """Save a task's write, and a checkpoint with a blob, which acknowledges both."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"value": [thread_id]}
    checkpoint["channel_versions"] = {"value": "1"}
    await saver.aput_writes(thread(thread_id, checkpoint["id"]), [("value", thread_id)], "task")
    await saver.aput(thread(thread_id), checkpoint, {"step": 1}, {"value": "1"})


async def assert_kept(saver: GroupCommitSaver, thread_id: str) -> None:
    found = await saver.aget_tuple(thread(thread_id))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"value": [thread_id]}
    assert found.pending_writes == [("task", "value", thread_id)]


class Load:
    """Writers that run until stopped, and record which writes were acknowledged."""

    def __init__(self, saver: GroupCommitSaver) -> None:
        self.saver = saver
        self.acknowledged: list[str] = []
        self.refused: list[Exception] = []
        self._stopped = False

    async def _write(self) -> None:
        while not self._stopped:
            name = uuid4().hex
            try:
                await put(self.saver, name)
            except DatabaseUnavailable as error:
                self.refused.append(error)
            else:
                self.acknowledged.append(name)

    async def more(self, count: int = 20) -> None:
        """Wait until ``count`` more writes are acknowledged."""
        goal = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= goal)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(self._write())
            await self.more()
            yield self
            self._stopped = True


@asynccontextmanager
async def saver_of(db: Database, settings: DatabaseSettings) -> AsyncIterator[GroupCommitSaver]:
    async with open_pool(db.url, settings) as pool, open_saver(pool) as saver:
        yield saver


@asynccontextmanager
async def pgbouncer(url: str) -> AsyncIterator[str]:
    """Run a pooler in transaction mode with fewer sessions than clients."""
    with tempfile.TemporaryDirectory(prefix="ventros-pgbouncer-") as folder:
        # It refuses to be root, and the server's socket is open to the server's user alone.
        user = SYSTEM_USER if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        async with _pgbouncer(url, Path(folder), user) as pooled:
            yield pooled


@asynccontextmanager
async def _pgbouncer(url: str, folder: Path, user: str | None) -> AsyncIterator[str]:
    where = psycopg.conninfo.conninfo_to_dict(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        "[databases]\n"
        f"* = host={where['host']} user={where['user']}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\n"
    )
    assert PGBOUNCER
    process = await asyncio.create_subprocess_exec(
        PGBOUNCER, "-q", str(configuration), user=user, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                assert process.returncode is None
                await asyncio.sleep(0.01)
            else:
                writer.close()
                break
        yield f"postgresql://{where['user']}@127.0.0.1:{port}/{where['dbname']}"
    finally:
        process.terminate()
        await process.wait()


async def terminate_all(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def fail_first(pool: Pool, times: int, state: str, *, table: str = "checkpoints") -> None:
    """Make Postgres refuse the first inserts into a table with this state."""
    async with pool.connection() as connection:
        await connection.execute("CREATE SEQUENCE refusals")
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('refusals') <= {times} THEN "
            f"RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$".encode()
        )
        await connection.execute(
            f"CREATE TRIGGER refuse AFTER INSERT ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse()".encode()
        )


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_database_that_restarts_under_load_loses_nothing_that_was_acknowledged(
    tmp_path: Path, how: str
) -> None:
    async with database(tmp_path) as db, saver_of(db, PATIENT) as saver:
        load = Load(saver)
        async with load.running():
            await (db.stop() if how == "stopped" else db.kill())
            await db.start()
            await load.more()
        assert load.refused == []
        for name in load.acknowledged:
            await assert_kept(saver, name)


async def test_a_long_outage_is_a_typed_error_for_each_writer(tmp_path: Path) -> None:
    async with database(tmp_path) as db, saver_of(db, PATIENT) as patient:
        async with saver_of(db, IMPATIENT) as saver:
            load = Load(saver)
            async with load.running():
                await db.stop()
                await until(lambda: len(load.refused) >= 10)
                await db.start()
                await load.more()
        told = {error.retry_after for error in load.refused if isinstance(error, DatabaseUnavailable)}
        assert told == {2}
        for name in load.acknowledged:
            await assert_kept(patient, name)


async def test_no_checkpoint_is_made_of_writes_that_failed(pool: Pool) -> None:
    saver = await saver_on(pool)
    await fail_first(pool, 1, "53100", table="checkpoint_writes")
    await saver.aput_writes(thread("t", "parent"), [("value", "lost")], "task")
    await until(lambda: saver.last_failure is not None)
    with pytest.raises(DatabaseUnavailable):
        await saver.aput(thread("t"), empty_checkpoint(), {"step": 1}, {})
    assert await saver.aget_tuple(thread("t")) is None
    await put(saver, "t")
    await assert_kept(saver, "t")


async def test_repeatedly_broken_connections_lose_nothing(pool: Pool) -> None:
    load = Load(await saver_on(pool))
    async with load.running():
        for _ in range(5):
            await terminate_all(pool)
            await load.more()
    assert load.refused == []
    for name in load.acknowledged:
        await assert_kept(load.saver, name)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "26000"])
async def test_a_transaction_rolled_back_for_another_is_retried(pool: Pool, state: str) -> None:
    saver = await saver_on(pool)
    await fail_first(pool, 2, state)
    await asyncio.gather(*(put(saver, f"t{number}") for number in range(5)))
    for number in range(5):
        await assert_kept(saver, f"t{number}")


@pytest.mark.parametrize("state", ["53100", "58030"])
async def test_a_disk_error_is_reported_at_once_and_the_next_write_succeeds(pool: Pool, state: str) -> None:
    saver = await saver_on(pool)
    await fail_first(pool, 1, state)
    with pytest.raises(DatabaseUnavailable, match="try again") as caught:
        await put(saver, "t")
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    await put(saver, "t")
    await assert_kept(saver, "t")


async def test_writes_fail_while_a_file_is_missing_and_succeed_afterwards(tmp_path: Path) -> None:
    """The table's file is moved away and back, so that the server itself meets the error."""
    async with (
        database(tmp_path) as db,
        saver_of(db, PATIENT) as patient,
        saver_of(db, IMPATIENT) as saver,
    ):
        await put(saver, "before")
        async with saver._pool.connection() as connection:
            await connection.execute("CHECKPOINT")
            row = await (
                await connection.execute("SELECT pg_relation_filepath('checkpoints') AS path")
            ).fetchone()
        assert row
        file = db.cluster / row["path"]
        await db.stop()
        shutil.move(file, tmp_path / "aside")
        await db.start()
        with pytest.raises((DatabaseUnavailable, psycopg.Error)):
            await put(saver, "during")
        shutil.copy(tmp_path / "aside", file)
        shutil.chown(file, db.cluster.owner(), db.cluster.group())
        await put(patient, "after")
        await assert_kept(patient, "before")
        await assert_kept(patient, "after")


async def test_an_exhausted_pool_refuses_readers_in_time_and_does_not_affect_writers(
    database_url: str,
) -> None:
    async with open_pool(database_url, IMPATIENT) as pool, open_saver(pool) as saver:
        held = [await pool.getconn() for _ in range(pool.max_size)]
        try:
            await put(saver, "t")
            with pytest.raises(PoolTimeout):
                await saver.aget_tuple(thread("t"))
        finally:
            for connection in held:
                await pool.putconn(connection)
        await assert_kept(saver, "t")


async def test_a_lock_of_another_session_is_waited_for_up_to_the_time_limit(
    database_url: str,
) -> None:
    async with open_pool(database_url, IMPATIENT) as pool, open_saver(pool) as saver:
        async with pool.connection() as other, other.transaction():
            await other.execute("LOCK TABLE checkpoints IN EXCLUSIVE MODE")
            with pytest.raises(DatabaseUnavailable):
                await put(saver, "t")
        await put(saver, "t")
        await assert_kept(saver, "t")


async def test_closing_the_saver_commits_queued_writes_and_refuses_later_ones(
    database_url: str,
) -> None:
    async with open_pool(database_url, PATIENT) as pool:
        async with open_saver(pool) as saver:
            writing = [asyncio.create_task(put(saver, f"t{number}")) for number in range(50)]
            await asyncio.gather(*writing[:1])
            last = asyncio.create_task(
                saver.aput_writes(
                    {"configurable": {"thread_id": "last", "checkpoint_ns": "", "checkpoint_id": "c"}},
                    [("value", 1)],
                    "task",
                )
            )
            await asyncio.gather(*writing)
        await last
        with pytest.raises(DatabaseUnavailable, match="stopping"):
            await put(saver, "late")


async def test_a_bug_in_the_writer_is_an_internal_error_and_the_writer_goes_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saver = await saver_on(pool)
    with monkeypatch.context() as patch:
        patch.setattr("checkpoints.saver.writer.build_insert", lambda rows, claims: 1 / 0)
        with pytest.raises(RuntimeError, match="bug") as failure:
            await put(saver, "t")
    assert isinstance(failure.value.__cause__, ZeroDivisionError)
    assert "checkpoint_writer_failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    await put(saver, "t")
    await assert_kept(saver, "t")


# Behind a transaction pooler


async def test_without_prepared_statements_sessions_keep_no_state(database_url: str) -> None:
    settings = PATIENT.model_copy(update={"prepared_statements": False})
    async with open_pool(database_url, settings) as pool, open_saver(pool) as saver:
        for number in range(10):
            await put(saver, f"t{number}")
            await assert_kept(saver, f"t{number}")
        mine = await saver._writer._connect()
        assert mine.prepare_threshold is None
        await mine.close()
        connections = [await pool.getconn() for _ in range(pool.max_size)]
        writers = saver._writer._connection
        assert writers is not None
        for connection in (*connections, writers):
            for state in (
                "SELECT name FROM pg_prepared_statements",
                "SELECT name FROM pg_settings WHERE source = 'session'",
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'",
                "SELECT name FROM pg_cursors WHERE is_holdable",
            ):
                cursor = await connection.execute(state.encode(), prepare=False)
                assert await cursor.fetchall() == []
        for connection in connections:
            await pool.putconn(connection)


@pytest.mark.skipif(not PGBOUNCER, reason="pgbouncer is not installed (on Debian: apt-get install pgbouncer)")
async def test_it_works_behind_pgbouncer_in_transaction_mode(database_url: str) -> None:
    async with pgbouncer(database_url) as url:
        settings = PATIENT.model_copy(update={"prepared_statements": False})
        async with open_pool(url, settings) as pool, open_saver(pool) as saver:
            await asyncio.gather(*(put(saver, f"t{number}") for number in range(100)))
            for number in range(100):
                await assert_kept(saver, f"t{number}")
            await saver.acopy_thread("t1", "copy")
            await saver.aprune(["t1"])
            await saver.adelete_thread("t2")
            assert await saver.aget_tuple(thread("t2")) is None
            history = await saver.aget_delta_channel_history(config=thread("copy"), channels=["value"])
            assert history == {"value": {"writes": []}}
