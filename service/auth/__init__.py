"""API keys, JSON Web Tokens, scopes and tenant rate limits."""
