"""The run engine: how a graph is executed for a caller."""
