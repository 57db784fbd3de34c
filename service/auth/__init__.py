"""API keys, JSON Web Tokens, scopes and rate limits of tenants."""
