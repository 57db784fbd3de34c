"""Log lines, as an operator and a log collector read them."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import structlog
from pydantic import BaseModel, ValidationError

from core.logging import configure_logging, get_logger
from core.settings import LogSettings

Lines: TypeAlias = Callable[[], list[dict[str, Any]]]

CARD = "4111111111111111"


class Terminal(io.StringIO):
    """A stream somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The session's logging is put back."""
    root = logging.getLogger()
    handlers, level, config = root.handlers, root.level, structlog.get_config()
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**config)


def logging_to(stream: io.StringIO, **settings: Any) -> Lines:
    configure_logging(LogSettings(**settings), stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def charge(card: str) -> None:
    """Fails with a customer's secret in a local variable."""
    number = card
    raise ValueError(f"a card of {len(number)} digits was refused")


def test_a_line_is_a_json_object_with_level_logger_time_and_fields() -> None:
    lines = logging_to(io.StringIO())
    get_logger("service.runs.executor").info("run_finished", steps=3, thread_id="t1")
    [line] = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "run_finished",
        "level": "info",
        "logger": "service.runs.executor",
        "steps": 3,
        "thread_id": "t1",
    }


def test_lines_of_a_request_carry_its_id_and_later_lines_do_not() -> None:
    lines = logging_to(io.StringIO())
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        get_logger("api").info("ours")
        logging.getLogger("some.library").warning("theirs")
    get_logger("api").info("after")
    assert [line.get("request_id") for line in lines()] == ["r1", "r1", None]


def test_an_exception_is_in_its_line_without_the_values_of_variables() -> None:
    lines = logging_to(io.StringIO())
    try:
        charge(CARD)
    except ValueError as error:
        get_logger("api").exception("charge_failed")
        get_logger("api").error("charge_failed", exc_info=error)
        logging.getLogger("some.library").exception("charge failed")
    assert len(lines()) == 3
    for line in lines():
        [raised] = line["exception"]
        assert (line["level"], raised["exc_type"]) == ("error", "ValueError")
        assert raised["exc_value"] == "a card of 16 digits was refused"
        assert [frame["name"] for frame in raised["frames"]][-1] == "charge"
        assert CARD not in json.dumps(line)


def test_lines_of_libraries_have_the_same_format() -> None:
    lines = logging_to(io.StringIO())
    logging.getLogger("some.library").warning("retrying in %d s after %r", 2, "timeout")
    [line] = lines()
    assert {key: line[key] for key in ("event", "level", "logger")} == {
        "event": "retrying in 2 s after 'timeout'",
        "level": "warning",
        "logger": "some.library",
    }
    assert set(line) == {"event", "level", "logger", "timestamp"}


def test_text_of_several_lines_is_logged_on_one_line() -> None:
    stream = io.StringIO()
    lines = logging_to(stream)
    get_logger("api").info("said", text='line one\nline "two" \ud800', where=Path("/tmp"))
    assert stream.getvalue().count("\n") == 1
    assert (lines()[0]["text"], lines()[0]["where"]) == ('line one\nline "two" \ud800', "/tmp")


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("logger", ["api", "some.library"])
def test_lines_below_the_level_are_left_out(level: str, written: list[str], logger: str) -> None:
    lines = logging_to(io.StringIO(), level=level)
    for name in ("debug", "info", "warning", "error"):
        getattr(get_logger(logger), name)("said")
        getattr(logging.getLogger(logger), name)("said")
    assert [line["level"] for line in lines()] == [name for name in written for _ in range(2)]


@pytest.mark.parametrize(("level", "written"), [("debug", 1), ("warning", 1), ("error", 0)])
def test_a_verbose_library_is_logged_from_warnings_on_and_never_below_the_level(
    level: str, written: int
) -> None:
    lines = logging_to(io.StringIO(), level=level)
    for name in ("httpx", "httpx2", "psycopg.pool", "uvicorn.error"):
        logging.getLogger(name).info("HTTP Request: GET /health")
        logging.getLogger(name).warning("something to look at")
    assert len(lines()) == 4 * written


def test_a_customers_words_are_not_printed_because_an_sdk_serialises_its_own_objects() -> None:
    with warnings.catch_warnings(record=True) as printed:
        warnings.resetwarnings()
        logging_to(io.StringIO())
        warnings.warn("Pydantic serializer warnings:\n  input_value='my password'", UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in printed] == ["something else"]


def test_configuring_twice_does_not_write_twice() -> None:
    stream = io.StringIO()
    logging_to(stream)
    lines = logging_to(stream)
    get_logger("api").info("once")
    assert len(lines()) == 1


# For people


def test_lines_on_a_terminal_are_written_for_people() -> None:
    terminal = Terminal()
    logging_to(terminal)
    get_logger("api").info("run_finished", steps=3)
    logging.getLogger("some.library").warning("retrying")
    shown = terminal.getvalue()
    assert "run_finished" in shown
    assert "retrying" in shown
    assert "\x1b[" in shown
    assert not shown.startswith("{")


def test_in_a_file_lines_for_people_have_no_colours() -> None:
    stream = io.StringIO()
    logging_to(stream, format="console")
    get_logger("api").info("run_finished", steps=3)
    assert "run_finished" in stream.getvalue()
    assert "steps=3" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_json_can_be_chosen_on_a_terminal() -> None:
    lines = logging_to(Terminal(), format="json")
    get_logger("api").info("run_finished")
    assert lines()[0]["event"] == "run_finished"


def test_an_exception_for_people_has_a_traceback_and_no_values_of_variables() -> None:
    terminal = Terminal()
    logging_to(terminal)
    try:
        charge(CARD)
    except ValueError:
        get_logger("api").exception("charge_failed")
    assert "in charge" in terminal.getvalue()
    assert "a card of 16 digits was refused" in terminal.getvalue()
    assert CARD not in terminal.getvalue()


@pytest.mark.parametrize("settings", [{"format": "json"}, {"format": "console"}])
def test_what_libraries_quote_of_a_customers_message_is_not_logged(settings: dict[str, str]) -> None:
    class Bill(BaseModel):
        amount: int

    stream = io.StringIO()
    logging_to(stream, **settings)
    log = get_logger("nodes.any")
    try:
        Bill.model_validate({"amount": f"my card is\n{CARD}"})
    except ValidationError as error:
        log.exception("unforeseen_error")
        log.warning("not_written", reason=str(error))
    log.warning("not_written", reason=f"null value in column\nDETAIL:  Failing row contains ({CARD}).")
    logged = stream.getvalue()
    assert CARD not in logged
    assert "valid integer" in logged
    assert "null value in column" in logged
