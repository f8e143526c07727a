"""The command line ``vlclip``: see ``--help``. ``photos`` reads the photos, ``rows`` writes the results."""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from vlclip._connection import TLS
from vlclip.cli.photos import Photos, draw
from vlclip.cli.rows import Output, Row, UsageError, checked_out, print_list
from vlclip.client import Client
from vlclip.errors import (
    CancelledError,
    DeadlineError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
    VlclipError,
)
from vlclip.results import Result

DESCRIPTION = """\
Embed product photos and texts in one space, with a VL-CLIP server.

  vlclip health
      Check that a server answers on localhost:8001 and that all its models are ready.

  vlclip embed-image mug.jpg lamp.png --type "coffee mug"
      Find the mug in each photo, embed its crop, and print its box.

  vlclip embed-image photos/ --type mug --out mugs.npz
      Embed every photo below a folder. The file has the arrays embedding, status, score, box_xyxy and file.

  vlclip embed-image 'photos/**/*.jpg' --whole --json > photos.jsonl
      Embed whole photos, without detection. Print one JSON object per line, with the embedding.

  vlclip embed-image photos/ --type mug --query "a red mug"
      Also print the similarity of each photo to a text.

  vlclip embed-text "a red mug" "a desk lamp" --out texts.npy
  vlclip embed-text - < titles.txt
      Embed the texts of the command line, or the lines of standard input.

  vlclip ground table.jpg --type mug --draw found.png
  vlclip ground photos/ --type mug --draw found/
      Draw the box, its score and the type on each photo.

  vlclip models
      List the pipelines, whether the server has them ready, and the maximum batch size of each.
"""

EXIT_CODES = """\
exit codes:
  0    success
  1    some photos could not be read or decoded; the results of the others are complete
  2    an argument is invalid, or a file cannot be read or written
  3    the server does not answer in time, is overloaded or is not ready: a retry may help
  4    the server refused the request or failed: a retry does not help
  130  interrupted by Ctrl-C

Results before a failure are printed, and saved with --out. Without --address, the environment variable VLCLIP_ADDRESS
has the addresses, separated by spaces.
"""

OK, NOT_DECODED, USAGE, NO_SERVER, REFUSED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 130, 141


FLAGS = {
    "address": "--address",
    "ca": "--ca",
    "headers": "--header",
    "server_name": "--server-name",
    "timeout": "--timeout",
    "tls": "--tls",
}
"""How errors spell the arguments of the client."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
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
        _print_error(error.message(FLAGS))
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
        raise UsageError(f"the command line needs {' and '.join(missing)}: pip install 'vlclip[cli]'")


def _print_error(line: str) -> None:
    print(f"vlclip: {line}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="vlclip",
        usage="vlclip COMMAND [argument …]",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(title="commands (details: vlclip COMMAND --help)", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(
            name,
            prog=f"vlclip {name}",
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=run)
        return subparser

    embed_image = command("embed-image", _embed_image, "embed photos of products")
    _add_files(embed_image)
    kind = embed_image.add_mutually_exclusive_group(required=True)
    kind.add_argument("--type", metavar="TYPE", help='the product to find in each photo, such as "coffee mug"')
    kind.add_argument("--whole", action="store_true", help="embed whole photos, without detection")
    embed_image.add_argument("--query", metavar="TEXT", help="also print the similarity of each photo to this text")
    _add_out(embed_image)

    embed_text = command("embed-text", _embed_text, "embed texts in the space of the photos")
    embed_text.add_argument("texts", nargs="+", metavar="TEXT", help="a text, or - for the lines of standard input")
    _add_out(embed_text)

    ground = command("ground", _ground, "find products in photos")
    _add_files(ground)
    ground.add_argument("--type", metavar="TYPE", required=True, help='the product to find, such as "coffee mug"')
    ground.add_argument(
        "--draw",
        type=Path,
        metavar="PATH",
        help="save each photo with its box: a file for one photo, a folder for several",
    )

    health = command("health", _health, "check whether each server answers and is ready")
    models = command("models", _models, "list the pipelines, and whether the server has them ready")
    for subparser in (embed_image, embed_text, ground, health, models):
        _add_common(subparser)
    return main


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a photo, a folder with JPEG, PNG and WebP files at any depth, or a pattern in quotes, such as '**/*.jpg'",
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="save the embeddings as .npy, or with names and statuses as .npz"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--address",
        action="append",
        metavar="HOST:PORT",
        help="gRPC endpoint of a server; repeat it for several, used round robin (VLCLIP_ADDRESS, else localhost:8001)",
    )
    group.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="time-out of each request, its retries included (30)"
    )
    group.add_argument("--tls", action="store_true", help="use TLS; implied by --ca, --cert and --server-name")
    group.add_argument(
        "--ca", metavar="PEM", help="certificate authority of the server, if it is not one of the system's"
    )
    group.add_argument("--server-name", metavar="NAME", help="name in the server's certificate, if it is not the host")
    group.add_argument("--cert", metavar="PEM", help="certificate of this client")
    group.add_argument("--key", metavar="PEM", help="its key")
    group.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help='header of each request, such as "authorization: Bearer …"; can be repeated',
    )


def _embed_image(arguments: argparse.Namespace) -> int:
    photos = Photos(arguments.files)
    out = checked_out(arguments.out)
    with _client(arguments) as client, Output(arguments.json, photos.count, out) as output:
        query = None if arguments.query is None else client.embed_texts(arguments.query).embedding[0]
        parts: Iterator[Result]
        if arguments.whole:
            parts = client.stream.embed_whole_images(photos)
        else:
            parts = client.stream.embed_images(photos, arguments.type)
        for rows in photos.rows(parts):
            for row in rows:
                if query is not None and row.decoded and row.embedding is not None:
                    row.similarity = float(query @ row.embedding)
            output.write(rows)
    return NOT_DECODED if output.report("photos") else OK


def _embed_text(arguments: argparse.Namespace) -> int:
    out = checked_out(arguments.out)
    waiting: deque[str] = deque()

    def texts() -> Iterator[str]:
        for text in _texts(arguments.texts):
            waiting.append(text)
            yield text

    with _client(arguments) as client, Output(arguments.json, None, out) as output:
        for part in client.stream.embed_texts(texts()):
            output.write([Row(text=waiting.popleft(), embedding=embedding) for embedding in part.embedding])
    output.report("texts")
    return OK


def _texts(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        if text != "-":
            yield text
            continue
        # Bytes that are not UTF-8 are passed on to the client, whose error names the text.
        with open(sys.stdin.fileno(), encoding="utf-8", errors="surrogateescape", closefd=False) as lines:
            for line in lines:
                yield line.rstrip("\r\n")


def _ground(arguments: argparse.Namespace) -> int:
    photos = Photos(arguments.files)
    target = None if arguments.draw is None else photos.drawn_to(arguments.draw)
    with _client(arguments) as client, Output(arguments.json, photos.count) as output:
        for rows in photos.rows(client.stream.ground(photos, arguments.type)):
            for row in rows:
                if target and row.decoded:
                    draw(row, arguments.type, target(Path(row.file or "")))
            output.write(rows)
    return NOT_DECODED if output.report("photos", f"drawn: {arguments.draw}" if target else "") else OK


def _health(arguments: argparse.Namespace) -> int:
    healths = []
    for address in _addresses(arguments):
        with _client(arguments, address) as client:
            healths.append({"address": address, **asdict(client.health(timeout=arguments.timeout or 5.0))})
    state = {(False, False): "no answer", (True, False): "not ready", (True, True): "ready"}
    cells = [(one["address"], state[one["live"], one["ready"]], f"{one['server']} {one['version']}") for one in healths]
    print_list(arguments.json, healths, ("server", "state", "software"), cells)
    if missing := [one["address"] for one in healths if not one["live"]]:
        _print_error(
            f"no server answers at {', '.join(missing)}. Start one with `make serve`, or correct --address (host and "
            "gRPC port, usually 8001) or the TLS options"
        )
    return OK if all(one["ready"] for one in healths) else NO_SERVER


def _models(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        models = client.models(timeout=arguments.timeout or 5.0)
    cells = [
        (model.name, "ready", ", ".join(model.versions), str(model.max_batch_size))
        if model.ready
        else (model.name, "not ready", "", "")
        for model in models
    ]
    print_list(arguments.json, [asdict(model) for model in models], ("pipeline", "state", "version", "batch"), cells)
    return OK


def _addresses(arguments: argparse.Namespace) -> list[str]:
    return arguments.address or os.environ.get("VLCLIP_ADDRESS", "").split() or ["localhost:8001"]


def _client(arguments: argparse.Namespace, address: str | None = None) -> Client:
    """A client of ``address``, or of all addresses of the command line."""
    addresses = [address] if address else _addresses(arguments)
    certificates = arguments.ca or arguments.cert or arguments.key or arguments.server_name
    return Client(
        addresses[0] if len(addresses) == 1 else addresses,
        timeout=arguments.timeout,
        tls=TLS(arguments.ca, arguments.cert, arguments.key, arguments.server_name) if certificates else arguments.tls,
        headers=dict(map(_header, arguments.header)),
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not name or not colon:
        raise UsageError(f'--header: expected NAME:VALUE, got "{text}"')
    return name, value
