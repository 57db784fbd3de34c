"""What travels with a run: JSON-able parameters only, never a live thing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Run parameters (LangGraph's ``context_schema``).

    Attributes:
        tenant: Whose data the run may touch. Set from authentication, never from a body.
        user: Who asked, within the tenant.
        locale: BCP 47 tag of the language to answer in; ``None``: the language of the message.
        model: ``provider:model`` that stands instead of MODEL for this run.
    """

    tenant: str = "default"
    user: str = "local"
    locale: str | None = None
    model: str | None = None
