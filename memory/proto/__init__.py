"""What ``make proto`` generates from ``memory/memory.proto``; written by no hand."""
