"""Connections to Google's models: the Gemini API with a key, and Vertex AI with a service account.

One adapter speaks to both. Names tell them apart as LangChain's do: ``google_genai:gemini-3.8-flash`` is
called at the Gemini API and ``google_vertexai:gemini-3.8-flash`` at Vertex AI, so that one can be the other's
fallback.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from core.errors import StartupError
from core.settings import ModelSettings

GEMINI: Final = "google_genai"
VERTEX: Final = "google_vertexai"
# The package of LangChain that speaks to both.
ADAPTER: Final = GEMINI
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)


def is_google(provider: str) -> bool:
    """Tell whether a provider is the Gemini API or Vertex AI."""
    return provider in {GEMINI, VERTEX}


def build_google_options(
    settings: ModelSettings, provider: str, *, subject: str, instead: str, location: str | None = None
) -> dict[str, Any]:
    """Return the options with which the adapter reaches a provider.

    Args:
        settings: The key, or the project and its service account.
        provider: :data:`GEMINI` or :data:`VERTEX`.
        subject: What needs the connection, for errors, e.g. ``the model 'google_genai:x'``.
        instead: What the operator can do without a connection, for errors.
        location: Location of Vertex AI; ``None``: ``GOOGLE_CLOUD_LOCATION``.

    Raises:
        StartupError: A setting is missing, or the service account's key file cannot be used.
    """
    if provider == GEMINI:
        if settings.google_api_key is None:
            raise StartupError(f"{subject} needs GOOGLE_API_KEY: set it, or {instead}")
        return {
            "api_key": settings.google_api_key,
            "base_url": settings.google_base_url,
            "vertexai": False,  # otherwise the environment could redirect the calls
        }
    if settings.google_cloud_project is None:
        raise StartupError(f"{subject} needs GOOGLE_CLOUD_PROJECT: set it, or {instead}")
    if settings.google_application_credentials is None:
        raise StartupError(
            f"{subject} needs GOOGLE_APPLICATION_CREDENTIALS, the path of a service account's key file: "
            f"set it beside GOOGLE_CLOUD_PROJECT, or {instead}"
        )
    return {
        "api_key": None,  # otherwise a key of the environment could be used
        "base_url": settings.google_base_url,
        "vertexai": True,
        "project": settings.google_cloud_project,
        "location": location or settings.google_cloud_location,
        "credentials": _read_service_account(settings.google_application_credentials),
    }


@lru_cache(maxsize=4)
def _read_service_account(file: Path) -> Any:
    """Return a service account's credentials, shared by all clients so that they share its tokens.

    The account is not asked for a token here: that is a request to Google.

    Raises:
        StartupError: The file cannot be read, or is not a service account's key.
    """
    # Imported late, because only Vertex AI needs it.
    from google.oauth2.service_account import Credentials  # noqa: PLC0415

    name = f"GOOGLE_APPLICATION_CREDENTIALS {str(file)!r}"
    try:
        return Credentials.from_service_account_file(str(file), scopes=_SCOPES)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise StartupError(f"{name} cannot be read: {error.strerror}; mount the key file there") from error
    except ValueError as error:
        # Neither the file's content nor the parser's message, which may quote it, is shown.
        raise StartupError(
            f"{name} is not the JSON key file of a service account; create one in the Cloud console under "
            "IAM, Service accounts, Keys"
        ) from error
