"""What the nodes of several patterns use."""
