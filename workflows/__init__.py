"""Workflows as data: what a definition may say, and how its expressions and templates are read."""
