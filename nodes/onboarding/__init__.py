"""The steps of a customer's onboarding: a conversation over days, one question at a time.

What the customer is asked, and in which order, is in :mod:`nodes.onboarding.questions`; its words in
:mod:`nodes.onboarding.texts`.
"""
