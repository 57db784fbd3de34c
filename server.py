"""The service: ``make serve`` runs this file, an ASGI server imports ``app``."""

import gc
import sys

# Imports make half a million objects that live as long as the process. Examining them again and again would
# take a fifth of the start.
gc.disable()

from service.app import create_app  # noqa: E402
from service.cli.supervisor import main  # noqa: E402

# Its lifespan opens the service from the environment's settings.
app = create_app()
gc.freeze()
gc.enable()

if __name__ == "__main__":
    sys.exit(main())
