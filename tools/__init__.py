"""LangChain tools over the CRM and memory APIs, and the CRM's client."""
