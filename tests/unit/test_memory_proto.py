"""The generated code is current, and the proto has every method of the port."""

from pathlib import Path

import pytest

from core.memory import Memory
from memory.proto import memory_pb2 as pb
from service.cli.proto import PROJECT, generate_proto

GENERATED = ("memory_pb2.py", "memory_pb2.pyi", "memory_pb2_grpc.py", "memory_pb2_grpc.pyi")

# The proto's methods, by the port's names.
METHODS = {
    "search": "Search",
    "assemble_context": "AssembleContext",
    "route": "Route",
    "query_graph": "QueryGraph",
    "add_messages": "AddMessages",
    "recent": "ListRecentMessages",
    "upsert_facts": "UpsertFacts",
    "list_facts": "ListFacts",
    "fact_history": "ListFactHistory",
    "upsert_edges": "UpsertEdges",
    "remember": "Remember",
    "get_note": "GetNote",
    "delete_note": "DeleteNote",
    "recall": "Recall",
    "list_notes": "ListNotes",
    "forget": "Forget",
}


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    generate_proto(tmp_path)
    for name in GENERATED:
        made, kept = (folder / "memory" / "proto" / name for folder in (tmp_path, PROJECT))
        assert made.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8"), "run `make proto`"


def test_the_proto_has_the_ports_methods() -> None:
    # Health is gRPC's own service.
    port = {name for name in vars(Memory) if not name.startswith("_")} - {"check_health"}
    assert set(METHODS) == port
    service = pb.DESCRIPTOR.services_by_name["MemoryService"]
    assert {method.name for method in service.methods} == set(METHODS.values())


@pytest.mark.parametrize("name", ["Search", "QueryGraph", "ListFacts", "ListNotes", "ListRecentMessages"])
def test_long_lists_are_streamed(name: str) -> None:
    [method] = [each for each in pb.DESCRIPTOR.services_by_name["MemoryService"].methods if each.name == name]
    assert method.server_streaming
    assert not method.client_streaming
