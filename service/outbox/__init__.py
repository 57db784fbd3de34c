"""The outbox: domain events for the CRM, written in the transaction that makes them true."""
