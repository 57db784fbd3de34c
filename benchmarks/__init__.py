"""Benchmarks and evaluations; their results are in README.md."""
