"""Sessions of contacts on channels: which conversation a message belongs to, and when it is over."""
