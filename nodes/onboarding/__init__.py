"""A customer's onboarding: a conversation over days, one question at a time."""
