"""Choose the threshold of a detector from your own photos: ``python -m export calibrate --help``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from export.errors import UsageError
from export.labelled import Question, questions_of, read_labelled, read_words
from export.progress import Say, progress, throttled
from serving.errors import RepositoryError
from serving.repository.manifest import Calibration, Manifest, read_served, require_version

if TYPE_CHECKING:
    from export.in_process import InProcess

HELP = """\
Choose the threshold of the detector from your own photos, and write it into the model repository.

  python -m export calibrate --photos photos/          photos/mug/1.jpg, photos/desk lamp/2.jpg, …
  python -m export calibrate --photos photos.csv       a table with the columns path and type (or .jsonl)
  python -m export calibrate --photos photos/ --absent "bicycle, piano"

Each photo is asked for the product types that it is labelled with, which it shows, and for some types that it does not
show: those of other photos, and those of --absent. The exported graphs answer, with the server's own decoder. So a
photo must not show a product of another type without that label; the report lists the photos whose scores suggest it.

The rule: at most --max-false of the questions for absent types may be grounded. Of the thresholds that keep this, the
command takes those that ground the most present types, and of these the middle of the gap to the next absent score.

The result is a new version of the models, with the next free number, and with the figures in its manifest. If the
calibrated version is served, the new one takes its place, and running servers switch to it without a restart.
"""
PICTURE = Path("build/calibration.png")
MIN_PHOTOS = 20
ROWS = 8
"""Questions that run at once. Large detectors take half a gigabyte for each."""
STEPS = 10_000
"""Thresholds are multiples of 1 / STEPS where these are fine enough."""
EXAMPLES = 3


@dataclass(frozen=True)
class Scores:
    """The questions to N photos that could be decoded, and the score of each."""

    questions: Sequence[Question]
    values: np.ndarray  # [N], float32
    unreadable: Sequence[Path]

    def of(self, present: bool) -> np.ndarray:
        return self.values[[question.present == present for question in self.questions]]

    def extremes(self, present: bool) -> list[tuple[float, Question]]:
        """The questions that are most likely labelled wrong: low scores of present types, or high ones of absent."""
        rows = [row for row, question in enumerate(self.questions) if question.present == present]
        rows.sort(key=lambda row: self.values[row] if present else -self.values[row])
        return [(float(self.values[row]), self.questions[row]) for row in rows[:EXAMPLES]]


def score(models: InProcess, questions: Sequence[Question], say: Say) -> Scores:
    """The detector's score for each question. Photos that the server would not decode are left out."""
    asked: list[Question] = []
    values: list[np.ndarray] = []
    unreadable: dict[Path, None] = {}
    step = throttled(say, "asking the detector")
    for start in range(0, len(questions), ROWS):
        some = questions[start : start + ROWS]
        paths = list(dict.fromkeys(question.path for question in some))
        decoded = models.decode([path.read_bytes() for path in paths])
        lost = [path for path, status in zip(paths, decoded["DECODED"][:, 0], strict=True) if status]
        unreadable |= dict.fromkeys(lost)
        some = [question for question in some if question.path not in lost]
        if some:
            rows = [paths.index(question.path) for question in some]
            images = {name: value[rows] for name, value in decoded.items()}
            values.append(models.run(images, [question.product_type for question in some])["SCORE"][:, 0])
            asked += some
        step(f"{start + len(some)} of {len(questions)} questions")
    return Scores(asked, np.concatenate(values) if values else np.zeros(0, np.float32), list(unreadable))


def share(scores: np.ndarray, threshold: float) -> float:
    """The share of the scores [N] that reach the threshold, in FP32 as in the graph."""
    return float((scores >= np.float32(threshold)).mean())


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """The area under the ROC curve: the chance that one of ``high`` [N] exceeds one of ``low`` [M]; ties count half."""
    ranked = np.sort(low)
    below, upto = (np.searchsorted(ranked, high, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(low)))


def choose_threshold(present: np.ndarray, absent: np.ndarray, max_false: float) -> float:
    """The threshold by the rule of ``HELP``, for scores of present [N] and absent [M] types.

    It may exceed 1, or all scores, if no threshold grounds a present type within ``max_false``.
    """
    allowed = math.floor(max_false * len(absent) + 1e-9)
    ranked = np.sort(absent)[::-1]
    grounded = present[present > ranked[allowed]]
    weakest = float(grounded.min()) if len(grounded) else math.inf
    below = float(absent[absent < weakest].max(initial=0.0))
    if math.isinf(weakest):
        return round_up(below, below + 2 / STEPS)
    return round_up((below + weakest) / 2, weakest)


def round_up(value: float, limit: float) -> float:
    """The next multiple of 1 / STEPS that is above ``value`` in FP32, or ``limit`` if that is lower."""
    rounded = math.ceil(value * STEPS) / STEPS
    while np.float32(rounded) <= np.float32(value):
        rounded = round(rounded + 1 / STEPS, 6)
    return rounded if np.float32(rounded) <= np.float32(limit) else limit


def require_enough(questions: Sequence[Question], max_false: float, lost: int = 0) -> None:
    """Raises UsageError if there are too few photos or questions, of which ``lost`` photos could not be decoded."""
    photos, absent = {question.path for question in questions}, sum(not question.present for question in questions)
    if len(photos) < MIN_PHOTOS:
        but = f"; {lost} could not be decoded" if lost else ""
        raise UsageError(f"expected at least {MIN_PHOTOS} different photos, got {len(photos)}{but}")
    if not absent:
        raise UsageError(
            "every photo is labelled with every type, so nothing is known about types that are not there: add photos "
            "of other types, or name types that no photo shows with --absent"
        )
    needed = max(MIN_PHOTOS, math.ceil(1 / max_false) if max_false else 0)
    if absent < needed:
        raise UsageError(
            f"{absent} questions for absent types are too few to measure a share of {max_false:g}: expected at least "
            f"{needed}, so add photos or raise --absent-per-photo"
        )


def calibrate(scores: Scores, max_false: float) -> Calibration:
    """The chosen threshold with its figures."""
    photos = {question.path for question in scores.questions}
    present, absent = scores.of(present=True), scores.of(present=False)
    threshold = choose_threshold(present, absent, max_false)
    return Calibration(
        threshold=threshold,
        present=share(present, threshold),
        absent=share(absent, threshold),
        auc=auc(present, absent),
        present_asked=len(present),
        absent_asked=len(absent),
        photos=len(photos),
        types=len({question.product_type for question in scores.questions if question.present}),
    )


def interval(found: float, asked: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``asked`` questions."""
    z = 1.96
    centre = (found + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z * math.sqrt(found * (1 - found) / asked + z * z / (4 * asked * asked)) / (1 + z * z / asked)
    return centre - half, centre + half


def show(scores: Scores, calibration: Calibration, before: float, detector: str) -> None:
    """Print the figures at the old and the new threshold, and the questions that may be labelled wrong."""
    console = Console(soft_wrap=True, highlight=False)
    title = f"{detector} on {calibration.photos} photos of {calibration.types} types, AUC {calibration.auc:.3f}"
    table = Table("the type is", title=title, title_justify="left")
    for column in ("asked", f"grounded at {before:g}", f"at {calibration.threshold:g}", "95 % interval"):
        table.add_column(column, justify="right")
    for name, present in (("there", True), ("not there", False)):
        values = scores.of(present)
        new = share(values, calibration.threshold)
        low, high = interval(new, len(values))
        table.add_row(name, str(len(values)), f"{share(values, before):.3f}", f"{new:.3f}", f"{low:.3f} to {high:.3f}")
    console.print(table)
    for present, what in ((True, "lowest scores of types that are there"), (False, "highest of types that are not")):
        console.print(f"Check these labels, the {what}:")
        for value, question in scores.extremes(present):
            console.print(f"  {value:.3f}  {question.product_type}  {question.path}", markup=False)
    for path in scores.unreadable:
        console.print(f"not decoded, left out: {path}", markup=False)


def plot(scores: Scores, calibration: Calibration, before: float, file: Path) -> None:
    """Draw how the scores of present and absent types are distributed, and both thresholds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 51).tolist()
    for present, colour, name in ((True, "#2f6f9f", "there"), (False, "#d98b3a", "not there")):
        values = scores.of(present)
        weights, label = np.full(len(values), 1 / len(values)), f"types that are {name} ({len(values)})"
        axes.hist(values, bins, weights=weights, color=colour, alpha=0.65, label=label)
    axes.axvline(before, color="#888", linestyle=":", label=f"old threshold {before:g}")
    axes.axvline(calibration.threshold, color="#222", label=f"new threshold {calibration.threshold:g}")
    axes.set_xlabel("score")
    axes.set_ylabel("share of the questions")
    shares = f"grounded: {calibration.present:.3f} of what is there, {calibration.absent:.3f} of what is not"
    axes.set_title(f"{shares}; AUC {calibration.auc:.3f}")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def require_useful(calibration: Calibration, max_false: float, min_present: float, detector: str) -> None:
    """Raises UsageError if the threshold grounds too few of the present types, or none."""
    if calibration.present and calibration.present >= min_present:
        return
    raise UsageError(
        f"the scores of {detector} do not separate these types: if at most {max_false:g} of the absent types may be "
        f"grounded, only {calibration.present:.3f} of the present ones are, expected at least {min_present:g} "
        f"(--min-present). Check the labels, use another detector (docs/models.md), or raise --max-false. The "
        f"repository did not change"
        + (f"; --force writes the threshold {calibration.threshold:g}" if calibration.present else "")
    )


def find_version(repository: Path, version: int | None) -> Manifest:
    """The version to calibrate: by default the one that is served. Raises RepositoryError."""
    if version is None:
        served = read_served(repository)
        if served is None:
            raise RepositoryError(f"{repository} serves no version to calibrate: export one with `make models`")
        version = served.version
    return require_version(repository, version)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command, besides ``--out``."""
    parser.description, parser.formatter_class = HELP, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder with a subfolder for each type, or a .csv or .jsonl table")
    add("--version", type=int, help="version to calibrate (default: the one that is served)")
    add("--absent", metavar="TYPES", help="types that no photo shows: separated by commas, or a file with one a line")
    add("--absent-per-photo", type=int, default=4, metavar="N", help="absent types to ask each photo for (%(default)s)")
    add(
        "--max-false", type=float, default=0.05, metavar="SHARE", help="absent types that may be grounded (%(default)s)"
    )
    add("--min-present", type=float, default=0.5, metavar="SHARE", help="write nothing if fewer are (%(default)s)")
    add("--picture", type=Path, default=PICTURE, metavar="FILE", help="the chart of the scores (%(default)s)")
    add("--stage", action="store_true", help="keep serving the current version")
    add("--force", action="store_true", help="write the threshold even if fewer than --min-present are grounded")


def run(given: argparse.Namespace) -> None:
    """Calibrate as the options say. Raises ExportError and RepositoryError."""
    from export.in_process import DETECT, InProcess
    from export.threshold import require_graphs, write_calibrated

    for option, value in (("--max-false", given.max_false), ("--min-present", given.min_present)):
        if not 0 <= value < 1:
            raise UsageError(f"{option} must be a share, at least 0 and below 1, got {value:g}")
    if given.absent_per_photo < 1:
        raise UsageError(f"--absent-per-photo must be at least 1, got {given.absent_per_photo}")
    source = find_version(given.out, given.version)
    require_graphs(source)
    words = read_words(given.absent) if given.absent else []
    questions = questions_of(read_labelled(given.photos), words, given.absent_per_photo)
    detector, before = str(source.request.detector.get("model")), source.request.settings.threshold
    require_enough(questions, given.max_false)
    with progress() as say:
        say("asking the detector …")
        scores = score(InProcess(given.out, version=source.version, graphs=DETECT), questions, say)
    require_enough(scores.questions, given.max_false, len(scores.unreadable))
    calibration = calibrate(scores, given.max_false)
    show(scores, calibration, before, detector)
    plot(scores, calibration, before, given.picture)
    print(f"The chart is {given.picture}")
    require_useful(calibration, given.max_false, 0 if given.force else given.min_present, detector)
    serve = not given.stage and read_served(given.out) == source
    made = write_calibrated(given.out, source, calibration, serve)
    if serve:
        print(
            f"{given.out} now serves version {made.version}, with the threshold {calibration.threshold:g}. Running "
            f"servers switch to it; `python -m export use --version {source.version}` goes back."
        )
    else:
        print(
            f"{given.out} now holds version {made.version}, with the threshold {calibration.threshold:g}. It is not "
            f"served: `python -m export use --version {made.version}` serves it."
        )
