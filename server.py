"""The service: ``make serve`` runs this file, an ASGI server imports ``app``."""

import sys

from fastapi import FastAPI

from service.app import create_app
from service.cli.serve import main


def create_app() -> FastAPI:
    """A new application; its lifespan opens the service from the environment's settings."""
    return create_app()


app = create_app()

if __name__ == "__main__":
    sys.exit(main())
