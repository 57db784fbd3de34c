"""What the steps of a compiled workflow do."""
