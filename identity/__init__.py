"""Who a request is from: API keys, tokens of an issuer, and the scopes they carry."""
