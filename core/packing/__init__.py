"""What a model is told beside its task, packed to a budget of tokens and accounted for.

The graphs pack their agents' contexts with it, and the memory those it is asked for.
"""
