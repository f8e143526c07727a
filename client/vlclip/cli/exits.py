"""The exit codes of ``vlclip``, and the error of an invalid argument."""

from __future__ import annotations

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


class UsageError(Exception):
    """An argument of the command line is invalid."""
