"""What routes ask for."""

from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from api.identity import Identity, requester
from api.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Requester: TypeAlias = Annotated[Identity, Depends(requester)]
OpenService: TypeAlias = Annotated[Service, Depends(_service)]
