"""Semantic routing: which agent a text is for, how sure that is, and when to leave it to the model."""

from nodes.routing.router import Router
from nodes.routing.verdicts import Candidate, Routing, Verdict

__all__ = ["Candidate", "Router", "Routing", "Verdict"]
