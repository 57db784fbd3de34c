"""Faults of embedding adapters: as those of chat models, and sometimes wrapped once more."""

from types import TracebackType

from core.models.faults import ProviderFaults


class AdapterFaults(ProviderFaults):
    """As :class:`~core.models.faults.ProviderFaults`, looking into what an adapter wraps.

    ``langchain-google-genai`` puts whatever happens to an embedding call into an exception of its own.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise our error for the provider's, or for its cause."""
        super().__exit__(kind, error, trace)
        if isinstance(error, Exception) and isinstance(error.__cause__, Exception):
            super().__exit__(type(error.__cause__), error.__cause__, trace)
