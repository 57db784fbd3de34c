"""What the nodes of several patterns share."""
