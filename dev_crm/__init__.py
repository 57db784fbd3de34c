"""The development CRM: stands in for a real CRM, so that the service runs end to end on a laptop.

It speaks the HTTP contract the tools are written against, keeps its data in the Postgres schema ``crm``
and is seeded with the customers of a small company. Where a real CRM is configured it is not mounted.
"""
