"""Where the results of pure steps are kept for some minutes: memory, Redis or Postgres."""

from checkpoints.cache.opening import open_cache

__all__ = ["open_cache"]
