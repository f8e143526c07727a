"""Measure how well texts find products in cluttered scenes, with and without grounding.

    python -m benchmarks.retrieval --scenes 500 --seed 12345 --json out.json
    python -m benchmarks.retrieval --ablation      the paper's ablation: raw text, then grounding, then enriched text

Each scene of the synthetic catalogue shows one item among three to five others. The item's clean caption is the query.
It is searched for among all scenes twice: by the embeddings of the grounded products, and by those of the whole images.

    iou50    share of the scenes in which the box has an IoU of at least 0.5 with the true one
    hits5    HITS@5: share of the queries that find their own scene among the first five
    mrr      mean reciprocal rank of the own scene

The scene is also asked for a product type that it does not show, and for a word that names no product type, which no
training has seen:

    grounded_present, grounded_absent, grounded_unknown
             share of the scenes whose score reaches the threshold (STATUS 0), for the item's type and for these two
    auc_absent, auc_unknown
             area under the ROC curve of the scores of the item's type against the other scores

A second set of scenes shows product types that no model was trained on.

The ablation uses a shop's noisy texts as queries. It draws what each step adds to build/ablation.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import ablation
from benchmarks.judge import box_iou
from benchmarks.photos import draw_scenes
from benchmarks.target import keep, parser_of, served
from export.calibrate import auc
from search.measures import hits, ranks, reciprocal
from training.catalogue.items import HELD_OUT_TYPES, TRAINED_TYPES, Item, is_held_out
from training.catalogue.scenes import Photo
from training.texts import EVALUATION_WORDS
from vlclip import Client, Status

ABLATION = Path("build/ablation.png")
ASKED = ("present", "absent", "unknown")
"""What a scene is asked for: the item's type, a type that is not there, a word that names no type."""
FIGURES = (
    "iou50",
    *(f"grounded_{asked}" for asked in ASKED),
    "auc_absent",
    "auc_unknown",
    "hits5_grounded",
    "hits5_whole",
    "mrr_grounded",
    "mrr_whole",
)


@dataclass(frozen=True)
class Answers:
    """What the server returned for N scenes, and the true boxes."""

    items: Sequence[Item]
    true_xyxy: np.ndarray  # [N, 4]
    box_xyxy: np.ndarray  # [N, 4]
    score: np.ndarray  # [N, 3], in the order of ASKED
    status: np.ndarray  # [N, 3]
    grounded: np.ndarray  # [N, D]
    whole: np.ndarray  # [N, D]
    text: np.ndarray  # [N, D]


def ask(client: Client, photos: Sequence[Photo]) -> Answers:
    """Embed the scenes with and without grounding, and their captions."""
    items = [photo.items[0] for photo in photos]
    files = [photo.jpeg for photo in photos]
    rng = np.random.default_rng(len(photos))
    absent = [draw_absent(photo, rng) for photo in photos]
    unknown = rng.choice(EVALUATION_WORDS, len(photos)).tolist()
    found = client.embed_images(files, [item.product_type for item in items])
    others = [client.ground(files, types) for types in (absent, unknown)]
    return Answers(
        items=items,
        true_xyxy=np.stack([photo.boxes_xyxy[0] for photo in photos]),
        box_xyxy=found.box_xyxy,
        score=np.stack([found.score, *(other.score for other in others)], axis=1),
        status=np.stack([found.status, *(other.status for other in others)], axis=1),
        grounded=found.embedding,
        whole=client.embed_whole_images(files).embedding,
        text=client.embed_texts([item.caption for item in items]).embedding,
    )


def draw_absent(photo: Photo, rng: np.random.Generator) -> str:
    """A random trained type that the scene does not show."""
    shown = {item.product_type for item in photo.items}
    return str(rng.choice([kind for kind in TRAINED_TYPES if kind not in shown]))


def measure(answers: Answers, rows: np.ndarray | None = None) -> dict[str, float]:
    """The figures of all queries, or of those in ``rows`` (bool [N]). All scenes are searched in both cases."""
    rows = np.ones(len(answers.items), bool) if rows is None else rows
    grounded, whole = ranks(answers.text, answers.grounded)[rows], ranks(answers.text, answers.whole)[rows]
    found = answers.status[rows] == Status.GROUNDED
    iou = np.where(found[:, 0], box_iou(answers.box_xyxy, answers.true_xyxy)[rows], 0)
    present, absent, unknown = answers.score[rows].T
    return {
        "queries": int(rows.sum()),
        "iou50": float((iou >= 0.5).mean()),
        "iou_mean": float(iou.mean()),
        **{f"grounded_{asked}": float(found[:, i].mean()) for i, asked in enumerate(ASKED)},
        "auc_absent": auc(present, absent),
        "auc_unknown": auc(present, unknown),
        "hits5_grounded": float(hits(grounded).mean()),
        "hits5_whole": float(hits(whole).mean()),
        "mrr_grounded": float(reciprocal(grounded).mean()),
        "mrr_whole": float(reciprocal(whole).mean()),
    }


def run(client: Client, scenes: int, seed: int) -> dict[str, Any]:
    """The figures of all scenes, of attribute combinations and of product types that were never trained on."""
    answers = ask(client, draw_scenes(scenes, seed))
    unseen = np.array([is_held_out(item.product_type, item.colour, item.pattern) for item in answers.items])
    held_out = ask(client, draw_scenes(max(scenes // 4, 1), seed, HELD_OUT_TYPES))
    report: dict[str, Any] = {"scenes": scenes, "seed": seed, **measure(answers)}
    if unseen.any():
        report["held_out_combinations"] = measure(answers, unseen)
    report["held_out_types"] = measure(held_out)
    return report


def show(report: dict[str, Any]) -> None:
    """Print the figures as a table."""
    sets = {"all": report}
    if "held_out_combinations" in report:
        sets["untrained combinations"] = report["held_out_combinations"]
    sets["untrained types"] = report["held_out_types"]
    table = Table("", title=f"Text to image retrieval among {report['scenes']} scenes, seed {report['seed']}")
    for name, figures in sets.items():
        table.add_column(f"{name}\n{figures['queries']} queries", justify="right")
    for figure in FIGURES:
        table.add_row(figure, *(f"{figures[figure]:.3f}" for figures in sets.values()))
    Console().print(table)


def main() -> None:
    parser = parser_of("retrieval", __doc__)
    parser.add_argument("--scenes", type=int, default=500, help="number of scenes to search (%(default)s)")
    parser.add_argument("--seed", type=int, default=12345, help="seed of the scenes (%(default)s; training used 1)")
    parser.add_argument("--ablation", action="store_true", help="run the paper's ablation, with a shop's texts")
    args = parser.parse_args()
    with served(args.url) as url, Client(url, timeout=120) as client:
        if args.ablation:
            report = {
                "scenes": args.scenes,
                "seed": args.seed,
                **ablation.run(client, draw_scenes(args.scenes, args.seed)),
            }
            ablation.show(report)
            ablation.plot(report, ABLATION)
            print(f"The chart is {ABLATION}")
        else:
            report = run(client, args.scenes, args.seed)
            show(report)
    keep(report, args.json)


if __name__ == "__main__":
    main()
