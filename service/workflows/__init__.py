"""Runs of declarative workflows in the background."""
