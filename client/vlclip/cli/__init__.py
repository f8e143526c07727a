"""The command line ``vlclip``: see ``--help``.

``arguments`` declares the options, and ``commands`` runs the commands: ``photos`` and ``tables`` find the rows,
``screen`` prints them, ``journal`` and ``files`` save them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from vlclip.cli.arguments import parser
from vlclip.cli.exits import (
    BROKEN_PIPE,
    INTERRUPTED,
    NO_SERVER,
    NOT_DECODED,
    OK,
    REFUSED,
    USAGE,
    UsageError,
    in_flags,
)
from vlclip.errors import (
    CancelledError,
    DeadlineError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
    VlclipError,
)

__all__ = ["BROKEN_PIPE", "INTERRUPTED", "NOT_DECODED", "NO_SERVER", "OK", "REFUSED", "USAGE", "main", "parser"]


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    if not given:
        parser().print_help(sys.stderr)
        return USAGE
    arguments = parser().parse_args(given)
    try:
        _require_extra()
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe. Python flushes its buffer at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except VlclipError as error:
        _print_error(in_flags(error))
        if isinstance(error, InvalidInputError):
            return USAGE
        retry = isinstance(error, UnavailableError | DeadlineError | OverloadedError | CancelledError)
        return NO_SERVER if retry else REFUSED
    except OSError as error:
        _print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return USAGE
    except UsageError as error:
        _print_error(str(error))
        return USAGE
    return code


def _require_extra() -> None:
    if missing := [module for module in ("rich", "PIL") if find_spec(module) is None]:
        packages = " ".join(module.replace("PIL", "pillow") for module in missing)
        raise UsageError(
            f"the command line needs {' and '.join(missing)}: pip install {packages} "
            "(in a checkout of VL-CLIP: pip install '.[cli]')"
        )


def _print_error(message: str) -> None:
    print(f"vlclip: {message}", file=sys.stderr)
