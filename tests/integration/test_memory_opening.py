"""Which memory a service opens."""

from typing import Any

from core.memory import Memory
from core.postgres import Pool
from core.settings import MemorySettings, Settings
from memory.embedded import EmbeddedMemory, open_configured_memory
from memory.grpc_server import serve_memory
from tests.support.memory_grpc import ANA, ScriptedMemory, lexical_embedder, make_message, memory_settings


def settings_with(memory: MemorySettings) -> Settings:
    return Settings.load(memory=memory)


async def told(memory: Memory) -> Any:
    return await memory.add_messages(ANA, [make_message("m1")])


async def test_without_a_target_the_memory_is_in_the_services_own_database(pool: Pool) -> None:
    async with open_configured_memory(settings_with(MemorySettings()), pool, lexical_embedder()) as memory:
        assert isinstance(memory, EmbeddedMemory)
        assert (await told(memory), await memory.recent(ANA)) == (1, [make_message("m1")])


async def test_with_a_target_the_memory_is_remote_and_leaves_the_database_alone(pool: Pool) -> None:
    there = ScriptedMemory()
    async with serve_memory(there, memory_settings(), grace_seconds=0) as address:
        chosen = settings_with(memory_settings(grpc_target=address))
        async with open_configured_memory(chosen, pool, lexical_embedder()) as memory:
            assert await told(memory) == 1
    assert [call[0] for call in there.calls] == ["add_messages"]
    async with pool.connection() as connection:
        found = await connection.execute("SELECT count(*) AS kept FROM memory.messages")
        assert await found.fetchone() == {"kept": 0}
