"""The task queue on Postgres: jobs that any replica runs, and passes that run once in the whole deployment.

This package alone imports procrastinate.
"""

from service.queue.jobs import Retry
from service.queue.queue import TaskQueue
from service.queue.schema import migrate_queue

__all__ = ["Retry", "TaskQueue", "migrate_queue"]
