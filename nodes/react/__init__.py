"""ReAct: think, act, reflect.

Yao et al. 2022 (arXiv 2210.03629); the reflection follows Shinn et al. 2023 (arXiv 2303.11366).
"""
