"""How long checkpoints are kept: policies, and the sweeps that carry them out."""

from checkpoints.retention.policy import Policies, Policy
from checkpoints.retention.sweeping import Sweep, SweepLine, sweep

__all__ = ["Policies", "Policy", "Sweep", "SweepLine", "sweep"]
