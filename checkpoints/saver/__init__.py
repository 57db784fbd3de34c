"""The graphs' checkpointer: LangGraph's Postgres tables, written with group commit."""

from checkpoints.saver.saver import GroupCommitSaver, build_serializer, expect_reads, open_saver

__all__ = ["GroupCommitSaver", "build_serializer", "expect_reads", "open_saver"]
