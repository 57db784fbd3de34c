"""Customer sessions: which conversation a message belongs to, and when it ends."""
