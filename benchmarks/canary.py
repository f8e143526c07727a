"""Compare another version of the models with the one that is served, before the switch.

    python -m export … --version 2 --stage                          puts it beside the one that is served
    python -m benchmarks.canary --version 2                             on 100 drawn photos
    python -m benchmarks.canary --version 2 --photos folder --type mug  on photos of yours
    python -m benchmarks.canary --version 2 --url localhost:8001        the served one is asked where it runs
    python -m benchmarks.canary --version 2 --promote                   and switch, if nothing speaks against it

Each version gets a server of its own on free ports, unless --url leads to that of the served one; what runs is left as
it is. Photo by photo, one is asked after the other, so that both meet the same machine. The exit code is 0 if every
figure keeps its limit, 1 if one does not, 2 if there was nothing to compare.

Embeddings of the same encoder, exported anew or in another precision, must be near each other: that is the cosine.
Those of different encoders cannot be compared. Then the cosine is not judged, but how many of the five nearest photos,
of each photo and of each text, both find, each in its own space. How many that should be depends on how much the new
encoder is to be another, so --min-overlap must say it; docs/operations.md has what was measured. Of drawn photos it is
known which text belongs to which, so a new encoder must also find them as well as the old one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.judge import TOP, box_iou, hits, ranks
from benchmarks.photos import draw_scenes, load_samples
from export.place import serve_version
from serving.errors import ServingError
from serving.paths import REPOSITORIES
from serving.repository.manifest import SERVED, Manifest, manifest_path, read_served, require_version
from serving.server.server import Server
from vlclip import Client, ImageEmbeddings, Status, VlclipError

COUNT, SEED = 100, 2026
WARM_UP = 8
"""Photos that are asked about before anything is timed."""


class CanaryError(Exception):
    """There is nothing to compare; the message says what to do."""


@dataclass(frozen=True)
class Photos:
    """N encoded files, the product type to be found in each, and M texts to search them with."""

    files: Sequence[bytes]
    product_types: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class Answers:
    """What one version says of the photos and texts."""

    embedding: np.ndarray  # [N, D]
    box_xyxy: np.ndarray  # [N, 4]
    score: np.ndarray  # [N]
    status: np.ndarray  # [N]
    whole: np.ndarray  # [N, D]
    text: np.ndarray  # [M, D]
    seconds: np.ndarray  # [N]


@dataclass(frozen=True)
class Limits:
    """What a candidate may differ by."""

    min_cosine: float = 0.98
    """Of the worst hundredth of the embeddings (p1)."""
    max_changed_status: float = 0.02
    min_iou: float = 0.9
    max_score_shift: float = 0.05
    min_overlap: float | None = None
    """Not judged without."""
    max_lost_recall: float = 0.1
    max_latency: float = 1.5


@dataclass(frozen=True)
class Figure:
    """One line of the table; without a limit it is not judged."""

    name: str
    text: str
    value: float = 0.0
    least: float = -np.inf
    most: float = np.inf

    @property
    def keeps(self) -> bool:
        """Whether it keeps its limit: a value that is no number, since there was nothing to measure, does not."""
        return not self.limit or bool(self.least <= self.value <= self.most)

    @property
    def limit(self) -> str:
        return f">= {self.least:g}" if self.least > -np.inf else f"<= {self.most:g}" if self.most < np.inf else ""


def compare(old: Answers, new: Answers, same_encoder: bool, limits: Limits) -> list[Figure]:
    """Figures of two versions' answers to the same photos, and whether each keeps its limit."""
    figures = []
    decoded = (old.status < Status.NOT_AN_IMAGE) & (new.status < Status.NOT_AN_IMAGE)
    spaces = {
        "product_image": (old.embedding[decoded], new.embedding[decoded]),
        "whole_image": (old.whole[decoded], new.whole[decoded]),
        "product_text": (old.text, new.text),
    }
    for name, (a, b) in spaces.items() if same_encoder else ():
        cosine = (a * b).sum(axis=1) if len(a) else np.array([np.nan])
        low, p1, p50 = np.quantile(cosine, (0, 0.01, 0.5))
        text = f"min {low:.4f}  p1 {p1:.4f}  p50 {p50:.4f}  mean {cosine.mean():.4f}"
        figures.append(Figure(f"cosine {name}", text, p1, least=limits.min_cosine))

    for name, a, b in (
        ("photo to photos", neighbours(old.embedding[decoded]), neighbours(new.embedding[decoded])),
        ("text to photos", nearest(old.text, old.embedding[decoded]), nearest(new.text, new.embedding[decoded])),
    ):
        overlap = overlaps(a, b)
        text = f"{overlap:.2f} of the first {a.shape[1]} are the same"
        least = -np.inf if limits.min_overlap is None else limits.min_overlap
        figures.append(Figure(f"neighbours {name}", text, overlap, least=least))
    if len(old.text) == len(old.embedding):
        before, after = (hits(ranks(one.text, one.embedding), 1) for one in (old, new))
        text = f"{after:.2f} of the texts instead of {before:.2f}"
        figures.append(Figure("own photo found first", text, before - after, most=limits.max_lost_recall))

    changed = (old.status != new.status).mean()
    figures.append(Figure("changed status", f"{changed:.3f} of the photos", changed, most=limits.max_changed_status))
    figures.extend(Figure("", line) for line in matrix(old.status, new.status))

    both = (old.status == Status.GROUNDED) & (new.status == Status.GROUNDED)
    if both.any():
        iou = box_iou(old.box_xyxy[both], new.box_xyxy[both])
        text = f"min {iou.min():.3f}  p50 {np.median(iou):.3f}  mean {iou.mean():.3f}"
        figures.append(Figure("box IoU", text, iou.mean(), least=limits.min_iou))
    shift = new.score[decoded] - old.score[decoded] if decoded.any() else np.array([np.nan])
    text = f"mean {shift.mean():+.4f}  largest {np.abs(shift).max():.4f}"
    figures.append(Figure("score shift", text, abs(shift.mean()), most=limits.max_score_shift))
    slow, fast = np.median(new.seconds), np.median(old.seconds)
    text = f"{1000 * slow:.1f} ms instead of {1000 * fast:.1f} ms, {slow / fast:.2f} times"
    figures.append(Figure("median latency", text, slow / fast, most=limits.max_latency))
    return figures


def nearest(queries: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """The rows of the photos [N, D] most like each query [M, D], the best first: [M, TOP], or fewer where N is."""
    return np.argsort(-(queries @ photos.T), axis=1, kind="stable")[:, :TOP]


def neighbours(photos: np.ndarray) -> np.ndarray:
    """The rows most like each of the photos [N, D], itself left out: [N, TOP], or fewer where N is."""
    cosine = photos @ photos.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, : min(TOP, max(len(photos) - 1, 0))]


def overlaps(a: np.ndarray, b: np.ndarray) -> float:
    """The part of the rows' members [N, K] that are in both; not a number where there are none."""
    if a.size == 0:
        return float("nan")
    return float(np.mean([len(set(one) & set(other)) / a.shape[1] for one, other in zip(a, b, strict=True)]))


def matrix(old: np.ndarray, new: np.ndarray) -> list[str]:
    """How many photos went from which status to which, as lines."""
    pairs, counts = np.unique(np.stack([old, new], axis=1), axis=0, return_counts=True)
    names = {status.value: status.name.lower() for status in Status}
    return [f"{count:6d}  {names[int(a)]} -> {names[int(b)]}" for (a, b), count in zip(pairs, counts, strict=True)]


def ask_both(urls: Sequence[str], photos: Photos) -> list[Answers]:
    """What each server says; every photo is put to one after the other. Raises VlclipError."""
    with Client(urls[0]) as old, Client(urls[1]) as new:
        clients = old, new
        found: tuple[list[ImageEmbeddings], ...] = [], []
        seconds: tuple[list[float], ...] = [], []
        for client in clients:
            client.embed_images(photos.files[:WARM_UP], photos.product_types[:WARM_UP])
        for i, (file, product_type) in enumerate(zip(photos.files, photos.product_types, strict=True)):
            for which in (0, 1) if i % 2 else (1, 0):
                begin = time.perf_counter()
                found[which].append(clients[which].embed_images(file, product_type))
                seconds[which].append(time.perf_counter() - begin)
        return [
            Answers(
                embedding=np.concatenate([one.embedding for one in found[which]]),
                box_xyxy=np.concatenate([one.box_xyxy for one in found[which]]),
                score=np.concatenate([one.score for one in found[which]]),
                status=np.concatenate([one.status for one in found[which]]),
                whole=client.embed_whole_images(photos.files).embedding,
                text=client.embed_texts(photos.texts).embedding,
                seconds=np.array(seconds[which]),
            )
            for which, client in enumerate(clients)
        ]


def read_photos(folder: Path, product_type: str) -> Photos:
    """The photos of a folder, all of one product type. Raises CanaryError if there are too few."""
    try:
        samples = load_samples(folder, product_type, 0, 0)
    except SystemExit as error:  # its exit code would say that the candidate failed
        raise CanaryError(str(error)) from None
    if len(samples) <= TOP:
        raise CanaryError(f"{len(samples)} photos in {folder}, at least {TOP + 1} are needed")
    files, types = zip(*samples, strict=True)
    return Photos(files, types, sorted(set(types)))


def draw_photos(count: int) -> Photos:
    """Scenes of the synthetic catalogue, with their captions as texts."""
    scenes = draw_scenes(max(count, TOP + 1), SEED)
    items = [photo.items[0] for photo in scenes]
    return Photos(
        [photo.jpeg for photo in scenes], [item.product_type for item in items], [item.caption for item in items]
    )


def pin(repository: Path, version: int, folder: Path) -> Path:
    """Make ``folder`` a repository that serves this version, whatever the other one serves.

    Raises RepositoryError where the version is not there.
    """
    require_version(repository, version)
    folder.mkdir()
    for config in repository.glob("*/config.pbtxt"):
        (folder / config.parent.name).symlink_to(config.parent.resolve())
    manifest = manifest_path(repository, version)
    (folder / manifest.name).symlink_to(manifest.resolve())
    (folder / SERVED).symlink_to(manifest.name)
    return folder


@contextmanager
def serving(repository: Path, version: int, ensembles: Path, profile: str | None) -> Iterator[str]:
    """The gRPC address of a server of this version. Raises RepositoryError, SetupError or ServerError."""
    with (
        tempfile.TemporaryDirectory(prefix="vlclip-canary-") as folder,
        Server.start([pin(repository, version, Path(folder, "models")), ensembles], profile=profile) as server,
    ):
        yield server.grpc_url


def have_same_encoder(old: Manifest, new: Manifest) -> bool:
    """Whether the embeddings of two versions lie in one space."""
    return old.request.encoder == new.request.encoder


def find_versions(arguments: argparse.Namespace) -> tuple[Manifest, Manifest]:
    """The version that is served, and the candidate. Raises CanaryError or RepositoryError."""
    served = read_served(arguments.model_repository)
    if served is None:
        raise CanaryError(f"{arguments.model_repository} serves no version to compare with: run `make models`")
    if arguments.version == served.version:
        raise CanaryError(f"version {arguments.version} is the one that is served: choose another with --version")
    return served, require_version(arguments.model_repository, arguments.version)


def run(arguments: argparse.Namespace) -> int:
    served, candidate = find_versions(arguments)
    same_encoder = have_same_encoder(served, candidate)
    if not same_encoder and arguments.min_overlap is None:
        raise CanaryError(
            f"versions {served.version} and {candidate.version} have different encoders: say with --min-overlap "
            f"which part of a photo's {TOP} nearest must be the same (docs/operations.md)"
        )
    photos = read_photos(arguments.photos, arguments.type) if arguments.photos else draw_photos(arguments.count)
    new = serving(arguments.model_repository, candidate.version, arguments.ensembles, arguments.profile)
    if arguments.url:
        with new as new_url:
            answers = ask_both((arguments.url, new_url), photos)
    else:
        old = serving(arguments.model_repository, served.version, arguments.ensembles, arguments.profile)
        with old as old_url, new as new_url:
            answers = ask_both((old_url, new_url), photos)
    limits = Limits(**{name: getattr(arguments, name) for name in Limits.__dataclass_fields__})
    figures = compare(answers[0], answers[1], same_encoder, limits)

    print(f"version {candidate.version} against version {served.version}, {len(photos.files)} photos")
    if not same_encoder:
        print("The encoders differ, so their embeddings cannot be compared: embed the catalogue anew after the switch.")
    for figure in figures:
        verdict = "" if not figure.limit else "ok  " if figure.keeps else "FAIL"
        print(f"{verdict:<5}{figure.name:<28}{figure.text:<58}{figure.limit}".rstrip())
    if failed := [figure for figure in figures if not figure.keeps]:
        why = ", ".join(f"{figure.name} is {figure.value:.3g}, not {figure.limit}" for figure in failed)
        print(f"Version {candidate.version} should not be served: {why}")
        return 1
    print(f"Nothing speaks against version {candidate.version}.")
    if arguments.promote:
        serve_version(arguments.model_repository, candidate.version)
        print(f"{arguments.model_repository} now serves version {candidate.version}.")
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.canary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    models, ensembles = REPOSITORIES
    add("--version", type=int, required=True, metavar="N", help="the candidate")
    add("--model-repository", type=Path, default=models, metavar="DIR", help="where both are (model_repository/)")
    add("--url", metavar="HOST:PORT", help="gRPC address of a running server of the served one (one is started)")
    add("--ensembles", type=Path, default=ensembles, metavar="DIR", help="the pipelines (ensembles/)")
    add("--profile", metavar="NAME", help="as for `serving start`")
    add("--photos", type=Path, metavar="DIR", help="photos to ask about (drawn ones)")
    add("--type", metavar="TEXT", help="the product type to be found in each photo of --photos")
    add("--count", type=int, default=COUNT, metavar="N", help="of drawn photos (%(default)s)")
    add("--promote", action="store_true", help="switch to the candidate if nothing speaks against it")
    for name, default in vars(Limits()).items():
        told = "(needed for another encoder)" if default is None else "(%(default)s)"
        add(f"--{name.replace('_', '-')}", type=float, default=default, metavar="X", help=told)
    arguments = parser.parse_args(argv)
    if bool(arguments.photos) != bool(arguments.type):
        parser.error("--photos and --type go together")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return run(parse_arguments(argv))
    except (CanaryError, ServingError, VlclipError) as error:
        print(f"canary: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
