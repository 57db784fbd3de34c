"""Calls to addresses that somebody else wrote down: allowed hosts only, and no way into the own network.

What is checked is the address that is connected to: a name is resolved once, every address of it is looked
at, and the connection is made to one of those (no second look-up that could answer otherwise, "DNS
rebinding"). Redirects are for the caller to follow, or not: each request passes here.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx

from core.errors import OutgoingRefused, OutgoingUnavailable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# Addresses of a host that are tried before it counts as away.
_MOST_ADDRESSES: Final = 3
# RFC 6052: an IPv4 address within IPv6.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A host that may be called.

    Attributes:
        host: Its name or address, in lower case.
        port: None: 443 over https alone, at public addresses. Named: that port over http or https, wherever
            it is, as whoever names a port knows the machine.
    """

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "AllowedHost":
        """Read ``host`` or ``host:port``.

        Raises:
            ValueError: It is neither.
        """
        found = _HOST.fullmatch(text.strip().lower())
        port = int(found["port"]) if found and found["port"] else None
        if found is None or port == 0 or (port or 0) > 65_535:  # noqa: PLR2004 - TCP's
            raise ValueError(f"{text!r} is no host or host:port")
        return cls(found["host"].strip("[]"), port)

    @property
    def name(self) -> str:
        """As it is written in the settings."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    def allows(self, url: httpx.URL) -> bool:
        """Whether an address is at this host."""
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
        if url.host.lower() != self.host or url.scheme not in _DEFAULT_PORTS:
            return False
        return port == self.port if self.port else (url.scheme == "https" and port == _DEFAULT_PORTS["https"])


class GuardedTransport(httpx.AsyncBaseTransport):
    """Lets requests to allowed hosts through, each host over connections of its own.

    Raises :class:`OutgoingRefused` for every other address, and :class:`OutgoingUnavailable` where a host has
    none.

    Args:
        allowed: The hosts.
        trusted: Whose certificates are; None: the public authorities'.
    """

    def __init__(self, allowed: Iterable[AllowedHost], trusted: ssl.SSLContext | None = None) -> None:
        self._hosts = _connections(list(allowed), trusted)

    def rule(self, url: httpx.URL) -> AllowedHost:
        """The allowed host an address is at.

        Raises:
            OutgoingRefused: It is at none.
        """
        for host in self._hosts:
            if host.allows(url):
                return host
        raise OutgoingRefused(
            f"{url.scheme}://{url.netloc.decode('ascii', 'replace')} is not an allowed host"
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Connect to an address that was checked, and to no other."""
        host = self.rule(request.url)
        port = request.url.port or _DEFAULT_PORTS[request.url.scheme]
        addresses = await _addresses(host, port)
        for address in addresses[:-1]:
            try:
                return await self._hosts[host].handle_async_request(_at(request, address))
            except httpx.ConnectError:
                # Nothing was sent: the next address may be reached.
                continue
        return await self._hosts[host].handle_async_request(_at(request, addresses[-1]))

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in self._hosts.values():
            await transport.aclose()


def _connections(
    allowed: list[AllowedHost], trusted: ssl.SSLContext | None
) -> dict[AllowedHost, httpx.AsyncHTTPTransport]:
    """Connections of its own for each host.

    A pool tells connections apart by address alone: two hosts on one address must not share one, as only the
    first one's certificate was looked at.
    """
    if not allowed:
        return {}
    # One for all, and only where it is needed: reading the authorities takes longer than most calls.
    verify = trusted or httpx.create_ssl_context(trust_env=False)
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
    return {host: httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits) for host in allowed}


def _at(request: httpx.Request, address: Address) -> httpx.Request:
    """The request, to an address; the name stays in ``Host``, and TLS asks for a certificate of it."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


async def _addresses(host: AllowedHost, port: int) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OutgoingUnavailable(f"{host.name} has no address ({type(error).__name__})") from error
    addresses = list(dict.fromkeys(ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found))
    if host.port is None and not all(map(is_public, addresses)):
        # One is enough: which address is connected to must not be a matter of luck.
        raise OutgoingRefused(f"{host.name} is at an address that is not public; allow it with its port")
    if not addresses:
        raise OutgoingUnavailable(f"{host.name} has no address")
    return addresses[:_MOST_ADDRESSES]


def is_public(address: Address) -> bool:
    """Whether an address is on the internet, also the one that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast
