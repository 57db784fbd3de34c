"""Planning with a monitor: plan, execute in waves, judge, adjust.

Planning before acting is Plan-and-Solve (Wang et al. 2023, arXiv 2305.04091). Steps that state their
dependencies, so that independent ones run in parallel, are from ReWOO (Xu et al. 2023, arXiv 2305.18323) and
LLMCompiler (Kim et al. 2023, arXiv 2312.04511).
"""
