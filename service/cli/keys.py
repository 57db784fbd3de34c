"""API keys at the command line: ``make keys ARGS="create --tenant acme --scope runs"``."""

import argparse
import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table

from checkpoints.embedded import embedded_postgres_server, running_postgres_url
from checkpoints.pool import open_pool
from core.context import Actor
from core.errors import NotFound, StartupError
from core.logging import configure_logging
from core.postgres import Connection
from core.settings import Settings
from service.audit.trail import key_change, record_entry
from service.auth.api_keys import PREFIX, KeyChange, KeyEntry, KeyStore, NewKey
from service.auth.principal import SCOPES
from service.auth.tokens import NAME_PATTERN
from service.migrations import migrate_rooms

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def main() -> int:
    """The command.

    Returns:
        The exit code: 0 when it was done, 1 when it could not be.
    """
    given = parser().parse_args()
    try:
        settings = Settings.load()
        configure_logging(settings.log, stream=sys.stderr)
        asyncio.run(command(settings, given))
    except (StartupError, NotFound) as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    return 0


async def command(settings: Settings, given: argparse.Namespace) -> None:
    """Do what was asked and print what came of it.

    Raises:
        StartupError: The database cannot be reached.
        NotFound: There is no such key.
    """
    async with _store(settings) as keys:
        match given.command:
            case "create":
                made = await keys.create(given.tenant, given.scope, user=given.user, lasts=given.expires)
                _show(made)
            case "rotate":
                made = await keys.rotate(given.id, grace=given.grace)
                _show(made, f"The old key ends in {given.grace}.")
            case "revoke":
                await keys.revoke(given.id)
                sys.stdout.write("Revoked; running services let go of it within AUTH_CACHE_SECONDS.\n")
            case _:
                console = Console()
                # Cut off, an id could not be copied.
                console.width = max(console.width, 140)
                console.print(_table(await keys.entries(given.tenant)))


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[KeyStore]:
    """The keys' table, of a service that runs or of one that does not."""
    async with AsyncExitStack() as stack:
        url = settings.database.url
        address = url.get_secret_value() if url else running_postgres_url(settings.server.data_dir)
        if address is None:
            address = await stack.enter_async_context(embedded_postgres_server(settings.server.data_dir))
        pool = await stack.enter_async_context(open_pool(address, settings.database))
        await migrate_rooms(pool)
        yield KeyStore(pool, recorded)


async def recorded(connection: Connection, made: KeyChange) -> None:
    """Write a change into the audit of the key's tenant, as the operator's."""
    by = Actor(tenant=made.tenant, user="operator")
    await record_entry(connection, key_change(made.change, made.id, scopes=made.scopes, by=by))


def _show(made: NewKey, also: str = "") -> None:
    """Say the key, alone on standard output, so that it can be piped to where secrets are kept."""
    sys.stderr.write(f"Key {made.id}. Keep what follows: it is not shown again. {also}\n")
    sys.stdout.write(f"{made.text}\n")


def _table(entries: Sequence[KeyEntry]) -> Table:
    drawn = Table(title="API keys")
    for column in ("id", "key", "tenant", "user", "scopes", "state", "made", "expires", "last used"):
        drawn.add_column(column, no_wrap=column == "id")
    for entry in entries:
        state = "good" if entry.good else "revoked" if entry.revoked_at else "expired"
        times = (entry.created_at, entry.expires_at, entry.last_used_at)
        shown = (entry.id, f"{PREFIX}{entry.id}_…", entry.tenant, entry.user_id, " ".join(entry.scopes))
        drawn.add_row(*shown, state, *map(_time, times))
    return drawn


def _time(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M") if moment else "never"


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(prog="python -m service.cli.keys", description="API keys of tenants.")
    commands = made.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key, and show it this once")
    create.add_argument("--tenant", type=_name, required=True)
    create.add_argument("--scope", action="append", choices=SCOPES, required=True, help="may be given again")
    create.add_argument("--user", type=_name, default="", help="who acts with it; else named after the key")
    create.add_argument("--expires", type=_duration, help="how long it is good, e.g. 90d; else until revoked")
    listed = commands.add_parser("list", help="show the keys, without what is secret of them")
    listed.add_argument("--tenant", type=_name)
    rotate = commands.add_parser("rotate", help="make a key that takes another's place")
    rotate.add_argument("id", type=_id)
    grace = timedelta(days=1)
    rotate.add_argument("--grace", type=_duration, default=grace, help="how long the old one goes on (1d)")
    revoke = commands.add_parser("revoke", help="end a key now")
    revoke.add_argument("id", type=_id)
    return made


def _name(text: str) -> str:
    if not NAME_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError("1 to 200 letters, digits, or any of _ . : @ + | / -")
    return text


def _id(text: str) -> str:
    """An id, or a key or its beginning, as people paste them."""
    found = re.fullmatch(rf"(?:{PREFIX})?([0-9a-f]{{16}})(?:_.*)?", text)
    if not found:
        raise argparse.ArgumentTypeError("an id of 16 characters, as `list` shows it")
    return found[1]


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    if not found:
        raise argparse.ArgumentTypeError("a number with m, h or d, e.g. 90d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


if __name__ == "__main__":
    sys.exit(main())
