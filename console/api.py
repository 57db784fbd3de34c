"""The service's HTTP API, with the key of the person who signed in."""

from typing import Any

import httpx
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

_TIMEOUT = httpx.Timeout(60, connect=5)


class ApiError(Exception):
    """Raise when the service refuses a request or cannot be reached.

    Args:
        message: What happened, for the person who reads it.
        status: The HTTP status; 0: the service cannot be reached.
        code: The service's code of the error.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code


class Api:
    """The API for one person.

    Args:
        url: Where the service listens.
        key: The person's API key; empty: the service needs none.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT)
        self.agent_server: LangGraphClient = get_client(url=url, api_key=None, headers=headers)

    async def get(self, path: str, **params: Any) -> Any:
        """Return the JSON (or the text) of a path.

        Raises:
            ApiError: The service refuses, or cannot be reached.
        """
        return await self._send("GET", path, params=params)

    async def post(self, path: str, body: Any = None, *, key: str = "", **params: Any) -> Any:
        """Post JSON and return the answer; ``key`` is an Idempotency-Key.

        Raises:
            ApiError: The service refuses, or cannot be reached.
        """
        headers = {"Idempotency-Key": key} if key else None
        return await self._send("POST", path, json=body, params=params, headers=headers)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        await self.agent_server.aclose()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any],
        json: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        given = {name: value for name, value in params.items() if value not in (None, "")}
        try:
            response = await self._http.request(method, path, params=given, json=json, headers=headers)
        except httpx.HTTPError as error:
            raise ApiError(f"The service at {self.url} does not answer ({type(error).__name__}).") from error
        is_json = response.headers.get("content-type", "").startswith("application/json")
        content = response.json() if is_json else response.text
        if response.is_success:
            return content
        described = content if isinstance(content, dict) else {}
        message = described.get("message") or f"The service answered {response.status_code}."
        raise ApiError(str(message), status=response.status_code, code=str(described.get("error", "")))
