"""The Agent Server API: what ``langgraph_sdk``, ``RemoteGraph``, ``useStream`` and LangGraph Studio speak."""
