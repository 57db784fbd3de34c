"""An HTTP transport for addresses that users choose: allowed hosts only, and none inside our own network.

A host name is resolved once, all its addresses are checked, and the connection is made to one of them. A
second look-up could return another address ("DNS rebinding"). The transport follows no redirects: the caller
may, and each request is checked here.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from typing import Final, TypeAlias

import httpx

from core.errors import OutgoingRefused, OutgoingUnavailable
from core.settings import AllowedHost

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# Addresses of a host that are tried before it counts as unavailable.
_MOST_ADDRESSES: Final = 3
# RFC 6052: IPv6 addresses that contain an IPv4 address.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends requests to allowed hosts only, with a separate connection pool for each host.

    A request to any other address raises :class:`OutgoingRefused`; one to a host whose name has no address
    raises :class:`OutgoingUnavailable`.

    Args:
        allowed: The hosts.
        trusted: Trusted certificates. ``None``: those of the public authorities.
        allows_any: Whether any other host is allowed at a public address, over https on port 443.
    """

    def __init__(
        self,
        allowed: Iterable[AllowedHost],
        trusted: ssl.SSLContext | None = None,
        *,
        allows_any: bool = False,
    ) -> None:
        # Shared and created only if needed: reading the authorities takes longer than most calls.
        hosts = list(allowed)
        verify = trusted or (httpx.create_ssl_context(trust_env=False) if hosts or allows_any else False)
        self._hosts = {host: _open_transport(verify, keepalive=20) for host in hosts}
        # Hosts that share a pool must not share a connection, so that it keeps none.
        self._others = _open_transport(verify, keepalive=0) if allows_any else None

    def find_host(self, url: httpx.URL) -> AllowedHost:
        """Return the allowed host of an address.

        Raises:
            OutgoingRefused: The address is at none of them.
        """
        for host in self._hosts:
            if _is_at(url, host):
                return host
        if self._others and url.host and _is_at(url, other := AllowedHost(url.host.lower())):
            return other
        raise OutgoingRefused(
            f"{url.scheme}://{url.netloc.decode('ascii', 'replace')} is not an allowed host"
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to a checked address of its host."""
        host = self.find_host(request.url)
        port = request.url.port or _DEFAULT_PORTS[request.url.scheme]
        addresses = await _resolve_addresses(host, port)
        transport = self._hosts.get(host) or self._others
        if transport is None:
            raise OutgoingRefused(f"{host.name} is not an allowed host")
        for address in addresses[:-1]:
            try:
                return await transport.handle_async_request(_address_request(request, address))
            except httpx.ConnectError:
                # Nothing was sent, so the next address can be tried.
                continue
        return await transport.handle_async_request(_address_request(request, addresses[-1]))

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in (*self._hosts.values(), *([self._others] if self._others else [])):
            await transport.aclose()


def _is_at(url: httpx.URL, host: AllowedHost) -> bool:
    port = url.port or _DEFAULT_PORTS.get(url.scheme)
    if url.host.lower() != host.host or url.scheme not in _DEFAULT_PORTS:
        return False
    return port == host.port if host.port else (url.scheme == "https" and port == _DEFAULT_PORTS["https"])


def _open_transport(verify: ssl.SSLContext | bool, *, keepalive: int) -> httpx.AsyncHTTPTransport:  # noqa: FBT001
    """Return a transport for one host, or for several if no connection is kept.

    A pool distinguishes connections by address alone. Two hosts at one address must not share a connection,
    because only the first host's certificate was verified.
    """
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=keepalive)
    return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)


def _address_request(request: httpx.Request, address: Address) -> httpx.Request:
    """Return the request with an address in place of the name, which stays in ``Host`` and in TLS's SNI."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


async def _resolve_addresses(host: AllowedHost, port: int) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OutgoingUnavailable(f"{host.name} has no address ({type(error).__name__})") from error
    addresses = list(dict.fromkeys(ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found))
    if host.port is None and not all(map(is_public, addresses)):
        # One private address is enough to refuse: the choice of the address must not be left to chance.
        raise OutgoingRefused(f"{host.name} is at an address that is not public; allow it with its port")
    if not addresses:
        raise OutgoingUnavailable(f"{host.name} has no address")
    return addresses[:_MOST_ADDRESSES]


def is_public(address: Address) -> bool:
    """Return whether an address, or the IPv4 address inside an IPv6 one, is on the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast
