"""How ``vlclip`` ends: its exit codes, and its messages about errors."""

from __future__ import annotations

import re

from vlclip.errors import VlclipError

OK, NOT_DECODED, USAGE, NO_SERVER, REFUSED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 130, 141

EXIT_CODES = """\
exit codes:
  0    success
  1    some rows could not be read or decoded; the results of the others are complete
  2    an argument is invalid, or a file cannot be read or written
  3    the server does not answer in time, is overloaded or is not ready: a retry may help
  4    the server refused the request or failed: a retry does not help
  130  interrupted by Ctrl-C

Results before a failure are printed. With --out, run the same command again to continue where it stopped. Without
--address, the environment variable VLCLIP_ADDRESS has the addresses, separated by spaces.
"""


FLAGS = {
    "address": "--address",
    "ca": "--ca",
    "certificate": "--cert",
    "headers": "--header",
    "key": "--key",
    "max_in_flight": "--max-in-flight",
    "server_name": "--server-name",
    "timeout": "--timeout",
    "tls": "--tls",
}
"""How errors spell the arguments of the client."""

JARGON = re.compile(
    r"connections to all backends failing; last error: \w+: "
    r"|(?<=Tls handshake failed) \(TSI_\w+\)"
    r"|(?<=: )SSL_ERROR_SSL: error:\w+:SSL routines:\w+:(?=[A-Z_]+: )"
    r"|: Invalid certificate verification context: OK"
)
"""Details of gRPC and BoringSSL that do not help."""


def in_flags(error: VlclipError) -> str:
    """The message of an error of the client, with the options of the command line in place of Python's arguments."""
    return JARGON.sub("", error.message(FLAGS))


class UsageError(Exception):
    """An argument of the command line is invalid."""
