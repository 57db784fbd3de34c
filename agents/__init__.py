"""The specialised agents: one Markdown file each, their schema and their loader."""
