"""ViT-B-32 and YOLO-World S at full size, with random weights: exported, served, and equal to PyTorch."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from benchmarks.photos import draw_scenes
from export.encoder_sources import resolve_encoder
from export.examples import canvases
from export.images import Detect, YoloWorld
from export.load_detector import load_detector
from export.load_encoder import load_encoder
from export.reference import Reference, open_image
from export.sources import YOLO_WORLD_TEXT, resolve_detector
from serving.paths import REPOSITORIES, ROOT
from serving.server.server import Server
from serving.server.stubs import find_stubs
from tests.export.conftest import write_detector
from vlclip import Client, Status

pytestmark = pytest.mark.slow

DRAWN, REAL = 12, 24
CANVAS = 768
MIB = 1 << 20


def photos() -> tuple[list[bytes], list[str]]:
    """Files and what to look for in them: drawn scenes, and real photos where VLCLIP_PHOTOS names some."""
    scenes = draw_scenes(DRAWN, 5)
    files = [scene.jpeg for scene in scenes]
    if "VLCLIP_PHOTOS" in os.environ:
        files += [file.read_bytes() for file in sorted(Path(os.environ["VLCLIP_PHOTOS"]).rglob("*.jpg"))[:REAL]]
    types = [scene.items[0].product_type for scene in scenes]
    return files, [types[row % len(types)] for row in range(len(files))]


def detect(detector: Path, files: list[bytes], types: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """PIL's pixels and open_clip's text tower into the detector of ultralytics: boxes (N, 4), scores (N, 1)."""
    loaded = load_detector(resolve_detector("yolo-world-s", str(detector)))
    text = Reference(encoder=load_encoder(resolve_encoder(YOLO_WORLD_TEXT[0], random=True)))
    prompts = torch.from_numpy(text.embed_texts(types))[:, None]  # (N, 1, C)
    model = Detect(YoloWorld(loaded.model, loaded.side)).eval()
    boxes, scores = [], []
    with torch.no_grad():
        for file, prompt in zip(files, prompts, strict=True):
            canvas, size, _ = canvases([open_image(file)], CANVAS)
            box, score = model(
                torch.from_numpy(canvas), torch.from_numpy(size), prompt[None], torch.ones(1, 1, dtype=torch.int32)
            )
            boxes.append(box.numpy() * (size[0, 3] / size[0, 1]))  # canvas to original
            scores.append(score.numpy())
    return np.concatenate(boxes), np.concatenate(scores)


def round_outwards(boxes_xyxy: np.ndarray, sizes_wh: list[tuple[int, int]]) -> np.ndarray:
    """To whole pixels inside the image: what is cropped, and what ``BOX`` tells."""
    edges = np.array([[*wh, *wh] for wh in sizes_wh])
    corners = np.concatenate([np.floor(boxes_xyxy[:, :2]), np.ceil(boxes_xyxy[:, 2:])], axis=1)
    return np.asarray(np.clip(corners, 0, edges))


def memory_of(server: Server) -> dict[str, int]:
    """Bytes of tritonserver and of the process of each model, shared pages counted in each."""

    stubs = sorted(find_stubs(server.shm_prefix), key=lambda stub: stub.model)
    pids = {"tritonserver": server.pid} | {stub.model: stub.pid for stub in stubs}
    return {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}


def test_the_served_pipeline_equals_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = write_detector(tmp_path / "detector.pt", scale="s", side=640, contrast=-2.0)
    # Threshold 0, so that every photo is cropped to its box.
    options = ["--detector", "yolo-world-s", "--detector-weights", str(detector), "--encoder", "ViT-B-32"]
    options += ["--random-weights", "--threshold", "0", "--out", str(tmp_path / "models")]
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "export", *options], cwd=ROOT, check=True)
    figures = {
        "export, s": time.monotonic() - begin,
        "export, peak MiB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }

    files, types = photos()
    begin = time.monotonic()
    with Server.start([tmp_path / "models", REPOSITORIES[1]]) as server:
        figures["start until every pipeline has answered, s"] = time.monotonic() - begin
        at_start = memory_of(server)
        with Client(server.grpc_url, timeout=300) as client:
            found = [client.embed_images(file, kind) for file, kind in zip(files, types, strict=True)]
            batched = client.embed_images(files, types)
            whole = client.embed_whole_images(files)
            texts = client.embed_texts(types)
            begin = time.monotonic()
            for file, kind in zip(files, types, strict=True):
                client.embed_images(file, kind)
            figures["one image, ms"] = 1e3 * (time.monotonic() - begin) / len(files)
        at_work = memory_of(server)

    assert batched.status.tolist() == [Status.GROUNDED] * len(files)
    images = [open_image(file) for file in files]
    found_boxes, scores = detect(detector, files, types)
    boxes = round_outwards(found_boxes, [image.size for image in images])
    reference = Reference(encoder=load_encoder(resolve_encoder("ViT-B-32", random=True)))
    embeddings = reference.embed(images, list(boxes))
    wholes = reference.embed(images)
    for name, one in (("one by one", found), ("in a batch", [batched])):
        served = np.concatenate([answer.embedding for answer in one])
        figures[f"{name}, cosine min"] = float((served * embeddings).sum(1).min())
        figures[f"{name}, box difference, pixels"] = float(
            np.abs(np.concatenate([answer.box_xyxy for answer in one]) - boxes).max()
        )
        figures[f"{name}, score difference"] = float(
            np.abs(np.concatenate([answer.score for answer in one]).ravel() - scores.ravel()).max()
        )
    figures["whole image, cosine min"] = float((whole.embedding * wholes).sum(1).min())
    figures["text, cosine min"] = float((texts.embedding * reference.embed_texts(types)).sum(1).min())
    # How far apart different photos are: what the cosines above are to be held against.
    others = embeddings @ embeddings.T
    figures["other photos, cosine mean"] = float(others[~np.eye(len(others), dtype=bool)].mean())

    with capsys.disabled():
        print(f"\n{len(files)} photos")
        for name, value in figures.items():
            print(f"  {name:<44}{value:14.7g}")
        for name, size in at_start.items():
            print(f"  {name + ', MiB at start and at work':<44}{size / MIB:8.0f}{at_work[name] / MIB:8.0f}")
        print(f"  {'sum, MiB':<44}{sum(at_start.values()) / MIB:8.0f}{sum(at_work.values()) / MIB:8.0f}")

    for name, value in figures.items():
        if "cosine min" in name:
            assert value >= 0.9999, name
        if "box difference" in name:
            assert value < 0.1, name
        if "score difference" in name:
            assert value < 1e-4, name
