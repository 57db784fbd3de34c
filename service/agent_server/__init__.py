"""What the Agent Server API serves beside runs: assistants, threads and their state, crons and the store."""
