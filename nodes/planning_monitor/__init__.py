"""The steps of planning with a monitor: plan, execute in waves, judge, adjust.

Planning first and then carrying out is Plan-and-Solve (Wang et al. 2023, arXiv 2305.04091). That steps say
what they depend on, and independent ones run at once, is from ReWOO (Xu et al. 2023, arXiv 2305.18323) and
LLMCompiler (Kim et al. 2023, arXiv 2312.04511).
"""
