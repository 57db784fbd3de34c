"""Command-line entry points: `python -m service.cli.<name>`; the Makefile names each."""
