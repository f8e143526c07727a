"""``vlclip`` on the command line: see ``--help``. Photos come in through ``photos``, rows go out through ``rows``."""

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

TEACHING = """\
Product photos and texts to embeddings of one space, by a VL-CLIP server.

  vlclip health
      whether a server answers on localhost:8001, and whether all its models are ready

  vlclip embed-image mug.jpg lamp.png --type "coffee mug"
      finds the mug in each photo, embeds its crop, and prints where it was

  vlclip embed-image photos/ --type mug --out mugs.npz
      every photo below a folder; the arrays of the file are embedding, status, score, box_xyxy and file

  vlclip embed-image 'photos/**/*.jpg' --whole --json > photos.jsonl
      plain CLIP of whole photos; one JSON object per line, embeddings included

  vlclip embed-image photos/ --type mug --query "a red mug"
      and how similar each is to a text

  vlclip embed-text "a red mug" "a desk lamp" --out texts.npy
  vlclip embed-text - < titles.txt
      texts of the command line, or the lines of standard input

  vlclip ground table.jpg --type mug --draw found.png
  vlclip ground photos/ --type mug --draw found/
      draws the box, its score and the type on each photo

  vlclip models
      which pipelines the server has ready, and the largest batch that each takes
"""

EXIT_CODES = """\
exit codes:
  0    all right
  1    some photos could not be read or decoded; the others are there
  2    an argument is not right, or a file cannot be read or written
  3    no server answers in time, or it is overloaded or not ready: another try may help
  4    the server refused or failed: another try will not help
  130  interrupted by Ctrl-C

What came before a failure is printed, and saved with --out. VLCLIP_ADDRESS holds one address or several, separated
by blanks, for when there is no --address.
"""

OK, NOT_DECODED, USAGE, NO_SERVER, REFUSED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    # gRPC logs what it cannot connect to, line after line; our one line says it too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        _require_extra()
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. What Python still holds of it goes nowhere, without complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return NO_SERVER if isinstance(error, DeadlineError) else USAGE
    except (UsageError, InvalidInputError) as error:
        _say(str(error))
        return USAGE
    except (UnavailableError, OverloadedError, CancelledError) as error:
        _say(str(error))
        return NO_SERVER
    except VlclipError as error:
        _say(str(error))
        return REFUSED
    return code


def _require_extra() -> None:
    if missing := [module for module in ("rich", "PIL") if find_spec(module) is None]:
        raise UsageError(f"this needs {' and '.join(missing)}: pip install 'vlclip[cli]'")


def _say(line: str) -> None:
    print(f"vlclip: {line}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="vlclip",
        usage="vlclip COMMAND [argument …]",
        description=TEACHING,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(title="commands (vlclip COMMAND --help says more)", metavar="", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], does: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            prog=f"vlclip {name}",
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    embed_image = command("embed-image", _embed_image, "embed photos of products")
    _add_files(embed_image)
    kind = embed_image.add_mutually_exclusive_group(required=True)
    kind.add_argument("--type", metavar="TYPE", help='the product to look for in each photo, as in "coffee mug"')
    kind.add_argument("--whole", action="store_true", help="embed photos as they are: plain CLIP")
    embed_image.add_argument("--query", metavar="TEXT", help="also say how similar each photo is to this text")
    _add_out(embed_image)

    embed_text = command("embed-text", _embed_text, "embed texts, in the space of the photos")
    embed_text.add_argument("texts", nargs="*", metavar="TEXT", help="- stands for the lines of standard input")
    embed_text.add_argument("--lines", metavar="FILE", help="embed each line of this file")
    _add_out(embed_text)

    ground = command("ground", _ground, "find products in photos")
    _add_files(ground)
    ground.add_argument("--type", metavar="TYPE", required=True, help='the product to look for, as in "coffee mug"')
    ground.add_argument(
        "--draw", type=Path, metavar="PATH", help="draw what was found: a picture for a single photo, else a folder"
    )

    health = command("health", _health, "say whether each server is there and ready")
    models = command("models", _models, "list the pipelines, and whether the server has them")
    for made in (embed_image, embed_text, ground, health, models):
        _add_common(made)
    return main


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a photo; a folder, for all JPEG, PNG and WebP files below it; or a pattern in quotes, as in '**/*.jpg'",
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="save the embeddings: .npy, or .npz with what they are of"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--address",
        action="append",
        metavar="HOST:PORT",
        help="the server's gRPC endpoint; several are used in turn (VLCLIP_ADDRESS, else localhost:8001)",
    )
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="for each request, retries included (30)")
    group.add_argument("--tls", action="store_true", help="encrypt; --ca and --cert include it")
    group.add_argument("--ca", metavar="PEM", help="authority that vouches for the server, if not one of the system's")
    group.add_argument("--cert", metavar="PEM", help="certificate of this client")
    group.add_argument("--key", metavar="PEM", help="its key")
    group.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help='as in "authorization: Bearer …"; may be given several times',
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
    if not arguments.texts and arguments.lines is None:
        raise UsageError("embed-text: expected a TEXT, - for standard input, or --lines FILE")
    out = checked_out(arguments.out)
    waiting: deque[str] = deque()

    def texts() -> Iterator[str]:
        for text in _texts(arguments.texts, arguments.lines):
            waiting.append(text)
            yield text

    with _client(arguments) as client, Output(arguments.json, None, out) as output:
        for part in client.stream.embed_texts(texts()):
            output.write([Row(text=waiting.popleft(), embedding=embedding) for embedding in part.embedding])
    output.report("texts")
    return OK


def _texts(texts: Sequence[str], lines: str | None) -> Iterator[str]:
    for text in texts:
        if text == "-":
            yield from _lines(sys.stdin.fileno())
        else:
            yield text
    if lines is not None:
        yield from _lines(lines)


def _lines(file: str | int) -> Iterator[str]:
    # What is not UTF-8 gets as far as the client, which refuses it and names the text.
    with open(file, encoding="utf-8", errors="surrogateescape", closefd=isinstance(file, str)) as opened:
        for line in opened:
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
    said = []
    for address in _addresses(arguments):
        with _client(arguments, address) as client:
            said.append({"address": address, **asdict(client.health(timeout=arguments.timeout or 5.0))})
    state = {(False, False): "no answer", (True, False): "not ready", (True, True): "ready"}
    cells = [(one["address"], state[one["live"], one["ready"]], f"{one['server']} {one['version']}") for one in said]
    print_list(arguments.json, said, ("server", "state", "software"), cells)
    if missing := [one["address"] for one in said if not one["live"]]:
        _say(
            f"no server answers at {', '.join(missing)}. Start one with `make serve`, or correct --address (host and "
            "gRPC port, usually 8001), or the options for TLS"
        )
    return OK if all(one["ready"] for one in said) else NO_SERVER


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
    """Of all addresses, or of the one that is given."""
    addresses = [address] if address else _addresses(arguments)
    own = arguments.ca or arguments.cert or arguments.key
    return Client(
        addresses[0] if len(addresses) == 1 else addresses,
        timeout=arguments.timeout,
        tls=TLS(arguments.ca, arguments.cert, arguments.key) if own else arguments.tls,
        headers=dict(map(_header, arguments.header)),
    )


def _header(given: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in given.partition(":"))
    if not name or not colon:
        raise UsageError(f'--header: expected NAME:VALUE, got "{given}"')
    return name, value
