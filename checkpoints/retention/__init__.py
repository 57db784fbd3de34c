"""How long checkpoints are kept: policies, and the sweeps that carry them out."""

from checkpoints.retention import Sweep, SweepLine, sweep
from checkpoints.retention.policy import Policies, Policy

__all__ = ["Policies", "Policy", "Sweep", "SweepLine", "sweep"]
