"""The service: ``make serve`` runs this file, an ASGI server imports ``app``."""

import sys

from service.app import create_app
from service.cli.supervisor import main

# Its lifespan opens the service from the environment's settings.
app = create_app()

if __name__ == "__main__":
    sys.exit(main())
