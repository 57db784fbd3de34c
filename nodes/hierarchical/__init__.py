"""A manager with sub-agents: divide the task, carry out the parts, decide what is next.

The roles follow AutoGen (Wu et al. 2023, arXiv 2308.08155) and MetaGPT (Hong et al. 2023, arXiv 2308.00352);
the dependency graph between subtasks follows LLMCompiler (Kim et al. 2023, arXiv 2312.04511).
"""
