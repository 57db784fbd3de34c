"""The log of a run, and how it is followed on any replica."""
