"""The development CRM: stands in for a real CRM so that the service runs end to end on a laptop.

It implements the HTTP contract that the tools are written against, keeps its data in the Postgres schema
``crm`` and is seeded with the customers of a small company. It is not mounted when a real CRM is configured.
"""
