"""What an agent may do to the outside: LangChain tools over the CRM API, and its client."""
