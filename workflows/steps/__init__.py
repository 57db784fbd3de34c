"""The steps that do something, a model a file."""
