"""Everything wrong with a definition, at once."""

from workflows.validation.faults import Fault
from workflows.validation.reading import read_definition

__all__ = ["Fault", "read_definition"]
