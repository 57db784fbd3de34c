"""API keys at the command line: ``make keys ARGS="create --tenant acme --scope runs"``."""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table

from core.context import Actor
from core.errors import NotFound, StartupError
from core.logging import configure_logging
from core.postgres import Connection
from core.settings import Settings
from service.audit.trail import Entry, record_entry
from service.auth.api_keys import PREFIX, KeyChange, KeyEntry, KeyStore, NewKey
from service.auth.principal import SCOPES
from service.auth.tokens import NAME_PATTERN
from service.cli.database import open_service_database

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
# Narrower, and an id would be cut off and could not be copied.
_TABLE_WIDTH = 140


def main() -> int:
    """Run the command.

    Returns:
        The exit code: 0 when it succeeded, 1 when it failed.
    """
    arguments = build_parser().parse_args()
    try:
        settings = Settings.load()
        configure_logging(settings.log, stream=sys.stderr)
        asyncio.run(run_command(settings, arguments))
    except (StartupError, NotFound) as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    return 0


async def run_command(settings: Settings, arguments: argparse.Namespace) -> None:
    """Run a parsed command and print its result.

    Raises:
        StartupError: The database cannot be reached.
        NotFound: There is no such key.
    """
    async with open_service_database(settings) as pool:
        store = KeyStore(pool, record_key_change)
        match arguments.command:
            case "create":
                key = await store.create(
                    arguments.tenant, arguments.scope, user=arguments.user or "", lifetime=arguments.expires
                )
                _print_key(key)
            case "rotate":
                key = await store.rotate(arguments.id, grace=arguments.grace)
                _print_key(key, f"The old key expires in {arguments.grace}.")
            case "revoke":
                await store.revoke(arguments.id)
                sys.stdout.write("Revoked; running services notice within AUTH_CACHE_SECONDS.\n")
            case _:
                console = Console()
                console.width = max(console.width, _TABLE_WIDTH)
                console.print(_build_table(await store.list_keys(arguments.tenant)))


async def record_key_change(connection: Connection, change: KeyChange) -> None:
    """Record a change in the audit trail of the key's tenant, as made by the operator."""
    entry = Entry(
        action="key",
        tool=change.id,
        outcome=change.change,
        details={"scopes": list(change.scopes)},
        actor=Actor(tenant=change.tenant, user="operator"),
    )
    await record_entry(connection, entry)


def _print_key(key: NewKey, note: str = "") -> None:
    """Print the key alone on standard output, so that it can be piped to where secrets are stored."""
    sys.stderr.write(f"Key {key.id}. Store the following text: it is not shown again. {note}\n")
    sys.stdout.write(f"{key.text}\n")


def _build_table(entries: Sequence[KeyEntry]) -> Table:
    table = Table(title="API keys")
    for column in ("id", "key", "tenant", "user", "scopes", "state", "created", "expires", "last used"):
        table.add_column(column, no_wrap=column == "id")
    for entry in entries:
        state = "valid" if entry.is_valid else "revoked" if entry.revoked_at else "expired"
        times = (entry.created_at, entry.expires_at, entry.last_used_at)
        cells = (entry.id, f"{PREFIX}{entry.id}_…", entry.tenant, entry.user_id, " ".join(entry.scopes))
        table.add_row(*cells, state, *map(_format_time, times))
    return table


def _format_time(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M") if time else "never"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m service.cli.keys", description="API keys of tenants.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="create a key, and show it this once")
    create.add_argument("--tenant", type=_parse_name, required=True)
    create.add_argument("--scope", action="append", choices=SCOPES, required=True, help="may be repeated")
    create.add_argument(
        "--user", type=_parse_name, help="who acts with the key (default: named after the key)"
    )
    create.add_argument(
        "--expires", type=_parse_duration, help="how long it is valid, e.g. 90d (default: until revoked)"
    )
    show = commands.add_parser("list", help="list the keys, without their secrets")
    show.add_argument("--tenant", type=_parse_name)
    rotate = commands.add_parser("rotate", help="create a successor of a key")
    rotate.add_argument("id", type=_parse_id)
    rotate.add_argument(
        "--grace",
        type=_parse_duration,
        default=timedelta(days=1),
        help="how long the old key stays valid (default: 1d)",
    )
    revoke = commands.add_parser("revoke", help="revoke a key now")
    revoke.add_argument("id", type=_parse_id)
    return parser


def _parse_name(text: str) -> str:
    if not NAME_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError("expected 1 to 200 letters, digits, or any of _ . : @ + | / -")
    return text


def _parse_id(text: str) -> str:
    """Accept an id, or a key or its beginning, as people paste them."""
    match = re.fullmatch(rf"(?:{PREFIX})?([0-9a-f]{{16}})(?:_.*)?", text)
    if not match:
        raise argparse.ArgumentTypeError("expected an id of 16 characters, as `list` shows it")
    return match[1]


def _parse_duration(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    if not match:
        raise argparse.ArgumentTypeError("expected a number with m, h or d, e.g. 90d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


if __name__ == "__main__":
    sys.exit(main())
