"""What an agent is told beside its task: gathered, packed to a budget of tokens, and accounted for."""
