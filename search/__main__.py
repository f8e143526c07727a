"""From a folder of photos to search, similar items and recommendations.

    python -m search index products.jsonl          embed a catalogue and index it
    python -m search query "a red striped mug"      products for a text
    python -m search query --photo mug.jpg          products for a photo
    python -m search similar p17                    products that look like a product
    python -m search recommend p17 p4 --not p9      products for a person
    python -m search evaluate judgements.csv        how good the answers are, by your judgements
    python -m search serve                          the HTTP gateway and its page

The index is a folder (Qdrant Edge), or the URL of a Qdrant cluster. Only one process can open a folder: while `serve`
runs, ask the gateway instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from search.commands import catalogue, evaluate, questions, serve, versions
from search.commands.common import common, console
from search.index import IndexFault
from search.photos import PhotoError
from search.questions import UnknownProduct
from search.records import CatalogueError
from search.shop import NoPhoto
from vlclip import VlclipError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for a failure, or 3 if some rows of a catalogue were bad."""
    args = parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except (IndexFault, CatalogueError, UnknownProduct, NoPhoto, PhotoError, VlclipError, ValueError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; what was written stays, and the same command continues")
        return 130


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    shown = argparse.RawDescriptionHelpFormatter
    main_parser = argparse.ArgumentParser(prog="python -m search", description=__doc__, formatter_class=shown)
    commands = main_parser.add_subparsers(required=True, metavar="COMMAND")
    everywhere = common()

    def command(
        name: str, run: Any, text: str, *parents: argparse.ArgumentParser, epilog: str | None = None
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, parents=[everywhere, *parents], help=text, description=text, epilog=epilog, formatter_class=shown
        )
        made.set_defaults(run=run)
        return made

    for group in (catalogue, questions, versions, evaluate, serve):
        group.add(command)
    return main_parser


if __name__ == "__main__":
    sys.exit(main())
