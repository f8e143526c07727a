"""The arguments of ``vlclip``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from vlclip import __version__
from vlclip.cli import commands
from vlclip.cli.exits import EXIT_CODES

DESCRIPTION = """\
Embed product photos and texts in one space, with a VL-CLIP server.

  vlclip health
      Check that a server answers on localhost:8001 and that all its models are ready.

  vlclip embed-image mug.jpg lamp.png --type "coffee mug"
      Find the mug in each photo, embed its crop, and print its box.

  vlclip embed-image photos/ --type mug --out mugs.npz
      Embed every photo below a folder, and save arrays with the names of the columns below.

  vlclip embed-image --table products.csv --out products.parquet
      Embed the photos of a table with the columns id, type and path, each with its own type.

  vlclip embed-image 'photos/**/*.jpg' --whole --json > photos.jsonl
      Embed whole photos, without detection. Print one JSON object per line, with the embedding.

  vlclip embed-image photos/ --type mug --query "a red mug"
      Also print the similarity of each photo to a text.

  vlclip embed-text "a red mug" "a desk lamp" --out texts.npy
  vlclip embed-text - < titles.txt
      Embed the texts of the command line, or the lines of standard input.

  vlclip enrich --type mug --title "NEW! Red Mug" --photo mug.jpg
  vlclip enrich --table products.csv --out texts.jsonl
      Write a clear text about each product, and embed it.

  vlclip ground table.jpg --type mug --draw found.png
  vlclip ground photos/ --type mug --draw found/
      Draw the box, its score and the type on each photo.

  vlclip models
      List the pipelines, whether the server has them ready, and the maximum batch size of each.
"""

FILES = """\
tables (--table):
  A .csv, .tsv or .jsonl file. Its columns may be in any order:
  id           any name of the row; it is copied to the output
  path         the photo, relative to the folder of the table
  type         the product to find in the photo, such as "coffee mug"
  text, title  for embed-text: the text; title is used if there is no text
  title, description and all others   for enrich: what is known about the product
  A row that cannot be read, or whose photo cannot, costs only itself: it is reported with its line and the reason,
  and has the status "unreadable".

files (--out):
  .parquet     a row for each photo or text; embedding is a fixed_size_list<float> (needs pyarrow)
  .jsonl       the same as JSON objects
  .npz         the same as one array for each column; rows without a value have zeros, or an empty text
  .npy         the embeddings alone
  Until the run is complete, its rows are in PATH.partial. If it is interrupted, run the same command again: it
  continues after these rows. The columns are id, path, type, text, status, reason, score, box_xyxy, similarity,
  rounds, prompts, truncated, version, embedding, those of them that the command has.
"""


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="vlclip",
        usage="vlclip COMMAND [argument …]",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--version", action="version", version=f"vlclip {__version__}")
    subparsers = main.add_subparsers(
        title="commands (details: vlclip COMMAND --help)", dest="command", metavar="COMMAND", required=True
    )

    def command(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, things: str = ""
    ) -> argparse.ArgumentParser:
        subparser = subparsers.add_parser(
            name,
            prog=f"vlclip {name}",
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"{FILES}\n{EXIT_CODES}" if things else EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=run, things=things)
        return subparser

    embed_image = command("embed-image", commands.embed_image, "embed photos of products", "photos")
    _add_files(embed_image)
    kind = embed_image.add_mutually_exclusive_group()
    _add_type(kind)
    kind.add_argument("--whole", action="store_true", help="embed whole photos, without detection")
    embed_image.add_argument("--query", metavar="TEXT", help="also print the similarity of each photo to this text")

    embed_text = command("embed-text", commands.embed_text, "embed texts in the space of the photos", "texts")
    embed_text.add_argument("texts", nargs="*", metavar="TEXT", help="a text, or - for the lines of standard input")

    ground = command("ground", commands.ground, "find products in photos", "photos")
    _add_files(ground)
    _add_type(ground)
    ground.add_argument(
        "--draw",
        type=Path,
        metavar="PATH",
        help="save each photo with its box: a file for one photo, a folder for several",
    )

    enrich = command("enrich", commands.enrich, "write a text about each product, and embed it", "products")
    enrich.add_argument("--title", metavar="TEXT", help="the title of one product")
    enrich.add_argument("--description", metavar="TEXT", help="its description")
    enrich.add_argument("--type", metavar="TYPE", help='its type, such as "coffee mug"')
    enrich.add_argument("--photo", metavar="FILE", help="its photo, for an agent that sees photos")

    for subparser in (embed_image, embed_text, ground, enrich):
        subparser.add_argument("--table", type=Path, metavar="FILE", help="a CSV or JSONL file, see below")
        subparser.add_argument("--out", type=Path, metavar="PATH", help="save the rows in a file, see below")
    health = command("health", commands.health, "check whether each server answers and is ready")
    models = command("models", commands.models, "list the pipelines, and whether the server has them ready")
    for subparser in (embed_image, embed_text, ground, enrich, health, models):
        _add_common(subparser)
    return main


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a photo, a folder with JPEG, PNG and WebP files at any depth, or a pattern in quotes, such as '**/*.jpg'",
    )


def _add_type(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--type",
        metavar="TYPE",
        help='the product to find in each photo, such as "coffee mug"; with --table, in the rows without a type',
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
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="time-out of each request, its retries included (30; of enrich 600; of health and models 5)",
    )
    group.add_argument(
        "--max-in-flight", type=int, default=4, metavar="N", help="batches that are sent at a time (%(default)s)"
    )
    group.add_argument("--tls", action="store_true", help="use TLS; implied by --ca, --cert and --server-name")
    group.add_argument(
        "--ca", metavar="PEM", help="certificate authority of the server, if it is not one of the system's"
    )
    group.add_argument("--cert", metavar="PEM", help="certificate of this client")
    group.add_argument("--key", metavar="PEM", help="its key")
    group.add_argument("--server-name", metavar="NAME", help="name in the server's certificate, if it is not the host")
    group.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help='header of each request, such as "authorization: Bearer …"; can be repeated',
    )
