"""Photos by URL, from hosts that the operator lists. Other hosts, and addresses of private networks, are refused."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable

import httpx

from search.photos import MAX_BYTES, PhotoError


class Remote:
    """Fetches photos over HTTP and HTTPS from the listed hosts.

    The address is resolved once and must be public; the request goes to that address, so that a name cannot point to
    another one in between. Redirects are not followed. A host is a name, or a name and a port other than 80 and 443.
    """

    def __init__(self, hosts: Iterable[str], *, timeout: float = 10.0, private: bool = False) -> None:
        """``timeout`` is for a photo in all. ``private`` permits addresses of private networks, for tests."""
        self._hosts, self._private, self._timeout = frozenset(host.lower() for host in hosts), private, timeout
        self._client = httpx.Client(timeout=timeout, follow_redirects=False, trust_env=False)

    def fetch(self, url: str) -> bytes:
        """The bytes behind a URL. Raises PhotoError."""
        deadline = time.monotonic() + self._timeout
        try:
            target, host, shown = self._checked(url)
            headers = {"Host": target.netloc.decode(), "Accept-Encoding": "identity"}
            there = target.copy_with(host=self._resolve(host, target.port or (443 if target.scheme == "https" else 80)))
            with self._client.stream("GET", there, headers=headers, extensions={"sni_hostname": host}) as answer:
                if answer.status_code != 200:
                    raise PhotoError(f"{shown} answered {answer.status_code} for the photo")
                return _read(answer, deadline, shown)
        except httpx.HTTPError as error:
            raise PhotoError(f"{shown} did not deliver the photo ({type(error).__name__})") from None

    def _checked(self, url: str) -> tuple[httpx.URL, str, str]:
        """A URL without a user, its host, and the start of it for messages. Raises PhotoError."""
        try:
            target = httpx.URL(url)
            host, port = target.host.lower(), target.port
        except (httpx.InvalidURL, ValueError) as error:  # ValueError: an international name that cannot be encoded
            raise PhotoError(f"{url[:200]!r} is not a URL ({error})") from None
        wanted = host if port is None else f"{host}:{port}"  # httpx knows the default ports
        if target.scheme not in ("http", "https") or not host or wanted not in self._hosts:
            raise PhotoError(
                f"photos from {target.scheme}://{wanted} are not allowed; "
                f"start the gateway with --photo-host {wanted or 'HOST'}"
            )
        return target.copy_with(username=None, password=None), host, f"{target.scheme}://{wanted}"

    def _resolve(self, host: str, port: int) -> str:
        try:
            found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError):
            raise PhotoError(f"the host {host} is unknown") from None
        if not self._private and not all(is_public(address) for address in found):
            raise PhotoError(f"{host} is an address of a private network, which is not allowed")
        return found[0]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def is_public(address: str) -> bool:
    """Whether an IP address is of the public internet. An address within an IPv6 address counts as itself."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        within = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in _NAT64:
            within.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
        if not all(is_public(str(one)) for one in within if one is not None):
            return False
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _read(answer: httpx.Response, deadline: float, shown: str) -> bytes:
    data = bytearray()
    for chunk in answer.iter_raw():
        data += chunk
        if len(data) > MAX_BYTES:
            raise PhotoError(f"the photo has more than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise PhotoError(f"{shown} was too slow with the photo")
    return bytes(data)
