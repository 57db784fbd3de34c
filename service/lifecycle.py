"""Where the service stands between up and stopped."""

from dataclasses import dataclass


@dataclass(slots=True)
class Lifecycle:
    """Told by who serves, asked by the routes.

    Attributes:
        is_stopping: Whether it was told to stop: load balancers should send their requests elsewhere.
    """

    is_stopping: bool = False
