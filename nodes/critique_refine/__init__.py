"""Critique and refine: a message is written, judged and rewritten until it is good enough.

Generation, scored feedback and refinement in turns are Self-Refine (Madaan et al. 2023, arXiv 2303.17651).
Here a validator also reads every version beside the critic and says whether it may be sent at all.
"""
