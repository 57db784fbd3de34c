"""The CRM's HTTP client and its models."""
