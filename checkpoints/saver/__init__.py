"""The graphs' checkpointer: LangGraph's Postgres tables, written with group commit."""

from checkpoints.saver.saver import GroupCommitSaver, expect_reads, open_saver

__all__ = ["GroupCommitSaver", "expect_reads", "open_saver"]
