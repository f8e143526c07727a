"""Questions: query, similar and recommend."""

from __future__ import annotations

import argparse

from search.commands.common import Add, console, options_of, shop_of, show
from search.photos import load
from search.questions import recent


def add(command: Add) -> None:
    """Add the commands."""
    options = asked()
    made = command("query", run_query, "Find products for a text or a photo.", options)
    made.add_argument("text", nargs="?", help="what to look for, such as 'a red striped mug'")
    made.add_argument("--photo", metavar="FILE", help="a photo instead of a text")
    made.add_argument("--photo-type", metavar="TYPE", help="what to look for in the photo; found if missing")
    made = command("similar", run_similar, "Find products that look like a product.", options)
    made.add_argument("product", help="the id of a product")
    made.add_argument("--widen", action="store_true", help="products of other types that go with it")
    made.add_argument("--duplicates", action="store_true", help="also products that show the same photo")
    made = command("recommend", run_recommend, "Find products for a person.", options)
    made.add_argument("liked", nargs="+", help="ids of products that the person looked at, latest first")
    made.add_argument("--not", dest="disliked", action="append", default=[], metavar="PRODUCT", help="a disliked one")


def asked() -> argparse.ArgumentParser:
    """Options of every question."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--type", action="append", metavar="TYPE", help="only this product type; can be repeated")
    made.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE",
        help="only products with this attribute: colour=red, price>=5, price<20, guessed.colour=red; can be repeated",
    )  # fmt: skip
    made.add_argument("--limit", type=int, default=10, help="number of products (%(default)s)")
    made.add_argument("--offset", type=int, default=0, help="number of products to skip (%(default)s)")
    made.add_argument(
        "--diversity", type=float, default=0.0, help="0: the most similar; 1: the most varied (%(default)s)"
    )
    return made


def run_query(args: argparse.Namespace) -> int:
    """Find products for a text or a photo."""
    if (args.text is None) == (args.photo is None):
        raise ValueError("expected a text or --photo FILE, as in: python -m search query 'a red striped mug'")
    with shop_of(args) as shop:
        if args.text is not None:
            show(args, shop.by_text(args.text, options_of(args)))
            return 0
        answer = shop.by_photo(load(args.photo), args.photo_type, options_of(args))
        where = "in the box " + ", ".join(f"{x:.0f}" for x in answer.box_xyxy) if answer.grounded else "as a whole"
        what = answer.product_type or "any product, because no product type of the index was found in it"
        console.print(f"the photo was searched {where} for {what}", highlight=False)
        show(args, answer.hits)
    return 0


def run_similar(args: argparse.Namespace) -> int:
    """Find products that look like a product."""
    with shop_of(args) as shop:
        show(args, shop.similar(args.product, options_of(args), widen=args.widen, duplicates=args.duplicates))
    return 0


def run_recommend(args: argparse.Namespace) -> int:
    """Find products for a person."""
    with shop_of(args) as shop:
        show(args, shop.recommend(recent(args.liked), options_of(args), disliked=args.disliked))
    return 0
