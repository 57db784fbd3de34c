"""The steps graphs are made of. A node knows its state and its dependencies, never the graph around it."""
