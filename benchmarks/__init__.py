"""What is measured; the results are in README.md."""
