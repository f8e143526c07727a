"""Photos by URL, from hosts that the operator lists. Other hosts, and addresses of private networks, are refused."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import httpx

from search.photos import MAX_BYTES, PhotoError


class Remote:
    """Fetches photos over HTTP and HTTPS from the listed hosts.

    The address is resolved once and must be public; the request goes to that address, so that a name cannot point to
    another one in between. Redirects are not followed.
    """

    def __init__(self, hosts: Iterable[str], *, timeout: float = 10.0, private: bool = False) -> None:
        """``private`` permits addresses of private networks, for a shop's own storage."""
        self._hosts, self._private = frozenset(host.lower() for host in hosts), private
        self._client = httpx.Client(timeout=timeout, follow_redirects=False, trust_env=False)

    def fetch(self, url: str) -> bytes:
        """The bytes behind a URL. Raises PhotoError."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        shown = f"{parts.scheme}://{host}"
        if parts.scheme not in ("http", "https") or host not in self._hosts:
            raise PhotoError(
                f"photos from {shown} are not allowed; start the gateway with --photo-host {host or 'HOST'}"
            )
        address = self._resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
        target = httpx.URL(url).copy_with(host=address)
        headers = {"Host": parts.netloc.rpartition("@")[2]}
        try:
            with self._client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as answer:
                if answer.status_code != 200:
                    raise PhotoError(f"{shown} answered {answer.status_code} for the photo")
                data = bytearray()
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > MAX_BYTES:
                        raise PhotoError(f"the photo has more than {MAX_BYTES >> 20} MiB")
                return bytes(data)
        except httpx.HTTPError as error:
            raise PhotoError(f"{shown} did not deliver the photo ({type(error).__name__})") from None

    def _resolve(self, host: str, port: int) -> str:
        try:
            found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError:
            raise PhotoError(f"the host {host} is unknown") from None
        if not self._private and not all(ipaddress.ip_address(address).is_global for address in found):
            raise PhotoError(f"{host} is an address of a private network, which is not allowed")
        return found[0]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
