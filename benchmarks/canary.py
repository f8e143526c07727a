"""Compare another version of the models with the served one, before it is served.

    python -m export … --version 2 --stage                              export it next to the served version
    python -m benchmarks.canary --version 2                             compare them on 100 drawn photos
    python -m benchmarks.canary --version 2 --photos folder             compare them on your photos
    python -m benchmarks.canary --version 2 --url localhost:8001        use a running server of the served version
    python -m benchmarks.canary --version 2 --promote                   serve it if every figure is within its limit

The canary starts a server of each version on free ports, or only one of the candidate with --url. It does not touch
servers that are running. It sends each photo to one server and then to the other, so that both meet the same
conditions. The exit code is 0 if every figure is within its limit, 1 if one is not, and 2 if there was nothing to
compare.

Embeddings of the same encoder, exported again or in another precision, must be close to each other: the limit is
--min-cosine. Embeddings of different encoders cannot be compared. In that case the canary looks for the five nearest
photos of each photo and of each text, in the space of each version, and --min-overlap says which share of them must be
the same. It has no default, because it depends on how different the new encoder is meant to be; docs/operations.md
lists measured values. With drawn photos, which have a text each, a new encoder must also find them by their texts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.differences import Answers, Limits, compare
from benchmarks.photos import add_options, draw_scenes, load_samples
from benchmarks.target import parser_of
from export.place import serve_version
from search.measures import TOP
from serving.errors import ServingError
from serving.paths import REPOSITORIES
from serving.repository.manifest import SERVED, Manifest, manifest_path, read_served, require_version
from serving.server.server import Server
from vlclip import Client, ImageEmbeddings, VlclipError

SEED = 2026
COLUMNS = ("embedding", "box_xyxy", "score", "status")
WARM_UP = 8
"""Photos that each server embeds before the latencies are measured."""


class CanaryError(Exception):
    """There is nothing to compare; the message says what to do."""


@dataclass(frozen=True)
class Photos:
    """N encoded files, the product type of each, and M texts to search them with."""

    files: Sequence[bytes]
    product_types: Sequence[str]
    texts: Sequence[str]


def read_photos(folder: Path, product_type: str) -> Photos:
    """The photos of a folder, with their product types as texts. Raises CanaryError if there are too few."""
    try:
        samples = load_samples(folder, product_type, 0, 0)
    except SystemExit as error:  # its exit code, 1, would say that a figure is not within its limit
        raise CanaryError(str(error)) from None
    if len(samples) <= TOP:
        raise CanaryError(f"{len(samples)} photos in {folder}, expected at least {TOP + 1}")
    files, types = zip(*samples, strict=True)
    return Photos(files, types, list(dict.fromkeys(types)))


def draw_photos(count: int) -> Photos:
    """Scenes of the synthetic catalogue, with their captions as texts."""
    scenes = draw_scenes(max(count, TOP + 1), SEED)
    items = [photo.items[0] for photo in scenes]
    return Photos(
        [photo.jpeg for photo in scenes], [item.product_type for item in items], [item.caption for item in items]
    )


@contextmanager
def serve(repository: Path, version: int, ensembles: Path, profile: str | None) -> Iterator[str]:
    """Start a server of this version, and yield its gRPC address. Raises a ServingError."""
    with (
        tempfile.TemporaryDirectory(prefix="vlclip-canary-") as folder,
        Server.start([pin(repository, version, Path(folder, "models")), ensembles], profile=profile) as server,
    ):
        yield server.grpc_url


def pin(repository: Path, version: int, folder: Path) -> Path:
    """Make ``folder`` a repository that serves this version, whichever version ``repository`` serves.

    Raises RepositoryError if ``repository`` does not hold the version.
    """
    require_version(repository, version)
    folder.mkdir()
    for config in repository.glob("*/config.pbtxt"):
        (folder / config.parent.name).symlink_to(config.parent.resolve())
    manifest = manifest_path(repository, version)
    (folder / manifest.name).symlink_to(manifest.resolve())
    (folder / SERVED).symlink_to(manifest.name)
    return folder


def ask_both(urls: tuple[str, str], photos: Photos) -> list[Answers]:
    """The answers of both servers, which embed each photo one after the other. Raises VlclipError."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(url)) for url in urls]
        found: list[list[ImageEmbeddings]] = [[], []]
        seconds: list[list[float]] = [[], []]
        for client in clients:
            client.embed_images(photos.files[:WARM_UP], photos.product_types[:WARM_UP])
        for i, (file, product_type) in enumerate(zip(photos.files, photos.product_types, strict=True)):
            for which in (0, 1) if i % 2 else (1, 0):
                begin = time.perf_counter()
                found[which].append(clients[which].embed_images(file, product_type))
                seconds[which].append(time.perf_counter() - begin)
        return [
            Answers(
                **{name: np.concatenate([getattr(row, name) for row in rows]) for name in COLUMNS},
                whole=client.embed_whole_images(photos.files).embedding,
                text=client.embed_texts(photos.texts).embedding,
                seconds=np.array(times),
            )
            for client, rows, times in zip(clients, found, seconds, strict=True)
        ]


def find_versions(arguments: argparse.Namespace) -> tuple[Manifest, Manifest, bool]:
    """The served version, the candidate, and whether they have the same encoder.

    Raises CanaryError or RepositoryError.
    """
    served = read_served(arguments.model_repository)
    if served is None:
        raise CanaryError(f"{arguments.model_repository} serves no version to compare with: run `make models`")
    if arguments.version == served.version:
        raise CanaryError(f"version {arguments.version} is the served one: choose another with --version")
    candidate = require_version(arguments.model_repository, arguments.version)
    same_encoder = served.digests.get("encoder") == candidate.digests.get("encoder")
    if not same_encoder and arguments.min_overlap is None:
        raise CanaryError(
            f"versions {served.version} and {candidate.version} have different encoders: give --min-overlap, the share "
            f"of a photo's {TOP} nearest photos that must be the same (docs/operations.md)"
        )
    return served, candidate, same_encoder


def run(arguments: argparse.Namespace) -> int:
    served, candidate, same_encoder = find_versions(arguments)
    photos = read_photos(arguments.photos, arguments.type) if arguments.photos else draw_photos(arguments.count)
    where = arguments.ensembles, arguments.profile
    with ExitStack() as stack:
        old_url = arguments.url or stack.enter_context(serve(arguments.model_repository, served.version, *where))
        new_url = stack.enter_context(serve(arguments.model_repository, candidate.version, *where))
        old, new = ask_both((old_url, new_url), photos)
    limits = Limits(**{limit.name: getattr(arguments, limit.name) for limit in fields(Limits)})
    figures = list(compare(old, new, same_encoder, limits))

    print(f"version {candidate.version} compared with version {served.version}, {len(photos.files)} photos")
    if not same_encoder:
        print("The encoders differ: after the switch, embed the catalogue again.")
    for figure in figures:
        verdict = "" if not figure.limit else "ok  " if figure.accepted else "FAIL"
        print(f"{verdict:<5}{figure.name:<28}{figure.text:<58}{figure.limit}".rstrip())
    if failed := [figure for figure in figures if not figure.accepted]:
        why = ", ".join(f"{figure.name} is {figure.value:.3g}, expected {figure.limit}" for figure in failed)
        print(f"Version {candidate.version} is not within the limits: {why}")
        return 1
    print(f"Version {candidate.version} is within all limits.")
    if arguments.promote:
        serve_version(arguments.model_repository, candidate.version)
        print(f"{arguments.model_repository} now serves version {candidate.version}.")
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("canary", __doc__, figures=False, url=False)
    add = parser.add_argument
    models, ensembles = REPOSITORIES
    add("--version", type=int, required=True, metavar="N", help="the candidate")
    add("--model-repository", type=Path, default=models, metavar="DIR", help="holds both versions (model_repository/)")
    add("--url", metavar="HOST:PORT", help="gRPC address of a server of the served version (default: start one)")
    add("--ensembles", type=Path, default=ensembles, metavar="DIR", help="the pipelines (ensembles/)")
    add("--profile", metavar="NAME", help="profile of the servers, as for `python -m serving start`")
    add_options(parser)
    add("--count", type=int, default=100, metavar="N", help="number of scenes to draw (%(default)s)")
    add("--promote", action="store_true", help="serve the candidate if every figure is within its limit")
    for limit in fields(Limits):
        default = "required for another encoder" if limit.default is None else "%(default)s"
        add(
            f"--{limit.name.replace('_', '-')}",
            type=float,
            default=limit.default,
            metavar="X",
            help=f"{limit.metadata['help']} ({default})",
        )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return run(parse_arguments(argv))
    except (CanaryError, ServingError, VlclipError) as error:
        print(f"canary: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
