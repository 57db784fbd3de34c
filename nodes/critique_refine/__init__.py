"""The steps of a message that is written, judged and rewritten until it is good enough.

Generating, giving feedback and refining in turns is Self-Refine (Madaan et al. 2023, arXiv 2303.17651), from
which the feedback in several scored dimensions is taken too. Here a validator reads beside the critic, and
says whether the message may be sent at all.
"""
