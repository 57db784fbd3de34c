"""What is measured; results are in README.md."""
