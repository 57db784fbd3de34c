"""The web console: watch, talk, approve and take over, as a client of the service's HTTP API."""
