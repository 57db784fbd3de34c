"""The graphs' checkpointer: LangGraph's Postgres tables, written with group commit."""

from checkpoints.saver.saver import GroupCommitSaver, open_saver

__all__ = ["GroupCommitSaver", "open_saver"]
