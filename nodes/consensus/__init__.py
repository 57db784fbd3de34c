"""Consensus: independent votes through different lenses, counted by a rule.

Independent samples that vote are Wang et al. 2022 (arXiv 2203.11171); different voters that give reasons and
a confidence are Chen et al. 2023 (arXiv 2309.13007). Here a rule decides, and a person where it does not.
"""
