"""The specialised agents, as data: a Markdown file each, and what loads them."""
