"""The command that measures the answers of the index."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search import plot
from search.commands.common import Add, console, progress_bar, shop_of
from search.evaluate import FORMAT, Evaluation, choose_shares, evaluate, grid, read_judgements


def add(command: Add) -> None:
    """Add the command."""
    made = command("evaluate", run_evaluate, "Measure the answers of the index by your judgements.", epilog=FORMAT)
    made.add_argument("judgements", type=Path, help="a .csv or .jsonl file with the fields query, product and grade")
    made.add_argument(
        "--out", type=Path, default=Path("build/evaluation"), metavar="FOLDER",
        help="where evaluation.json and evaluation.png are written (%(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--choose-shares", action="store_true",
        help="choose the shares of image, text and words in a text question, and keep them with the index if they are "
        "better than the photos alone",
    )  # fmt: skip


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure the answers of the index, after choosing the shares of text questions if that is asked for."""
    queries, bad = read_judgements(args.judgements)
    report: dict[str, Any] = {"judgements": str(args.judgements)}
    with shop_of(args) as shop:
        if args.choose_shares:
            with progress_bar("trying", "combinations of shares") as bar:
                task = bar.add_task("", total=len(grid()))
                choice = choose_shares(shop, queries, progress=lambda done: bar.advance(task, done))
            if choice.is_better:
                shop.keep_shares(choice.shares)
            report["shares"] = asdict(choice) | {"kept": choice.is_better}
            console.print(str(choice), highlight=False, markup=False)
        with progress_bar("asking", "queries") as bar:
            task = bar.add_task("", total=len(queries))
            found = evaluate(shop, queries, progress=lambda done: bar.advance(task, done))
    problems = [str(row) for row in (*bad, *found.failed)]
    report |= {"queries": found.queries, "measures": asdict(found)["measures"], "failed": problems}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
    plot.bars(found.measures, args.out / "evaluation.png", "Answers of the index")
    if args.json:
        print(json.dumps(report))
    else:
        show_evaluation(found)
        for problem in problems[:20]:
            print(f"  {problem}")
        print(f"In brackets: 95 % bootstrap intervals over the queries. {args.out} has the figures and a plot.")
    return 3 if problems else 0


def show_evaluation(found: Evaluation) -> None:
    """Print the measures of each kind of query."""
    table = Table("", *(f"{kind} ({count} queries)" for kind, count in found.queries.items()))
    for name in next(iter(found.measures.values()), {}):
        table.add_row(name, *(escape(str(measures[name])) for measures in found.measures.values()))
    Console(width=max(Console().width, 100)).print(table)
