"""What the steps of workflows do."""
