"""A message comes in, the right specialist answers."""
