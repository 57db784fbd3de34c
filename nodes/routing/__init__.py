"""Semantic routing: which agent a text is for, how sure that is, and when to leave it to the model."""

from nodes.coordinator.classifier import Candidate, Routing, Verdict
from nodes.coordinator.router import Router

__all__ = ["Candidate", "Router", "Routing", "Verdict"]
