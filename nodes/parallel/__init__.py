"""Agents that work on one question at once: the first good answer wins, or all of them are merged.

Taking the first of several answers is the hedged request of Dean and Barroso 2013 ("The Tail at Scale");
merging the answers of several models is Wang et al. 2024 (Mixture-of-Agents, arXiv 2406.04692).
"""
