"""A fault, and where it is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something wrong with a definition.

    Attributes:
        path: Its place, ``steps.2.then.0.url``; empty: the definition itself.
        step: Id of the step it is in; empty: none.
        field: The field of the step, or of the definition.
        message: What is wrong and what to do.
    """

    path: str
    step: str
    field: str
    message: str

    def as_json(self) -> dict[str, str]:
        """For an error body."""
        return {"path": self.path, "step": self.step, "field": self.field, "message": self.message}
