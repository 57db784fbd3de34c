"""The checkpointer the graphs are compiled with: LangGraph's Postgres tables, written in groups."""

from checkpoints.saver.saver import GroupCommitSaver, open_saver

__all__ = ["GroupCommitSaver", "open_saver"]
