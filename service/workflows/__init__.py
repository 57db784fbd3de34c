"""Runs declarative workflows in the background."""
