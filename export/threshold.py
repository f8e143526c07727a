"""Another threshold in exported models, without exporting them again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from export import examples
from export.errors import GraphError, ParityError, UsageError
from export.in_process import quiet_options
from export.place import put_in_place, staging
from serving.errors import RepositoryError
from serving.repository.manifest import Calibration, Manifest, read_manifests, require_version
from serving.repository.specs import CANVASES, LEAVES

THRESHOLD = "threshold"


def require_graphs(manifest: Manifest) -> None:
    """Raises UsageError for TensorRT plans, which cannot be changed."""
    if manifest.request.settings.format != "onnx":
        raise UsageError(
            f"version {manifest.version} consists of TensorRT plans, whose threshold is fixed: calibrate an export of "
            f"the same detector with --format onnx, then export the plans with the --threshold that it gives"
        )


def write_calibrated(repository: Path, source: Manifest, calibration: Calibration, serve: bool) -> Manifest:
    """Write the models of ``source`` with the calibrated threshold as a new version, the next free number.

    Only ``crop`` has the threshold. The other files are the same files, by hard links where possible.

    Raises:
        GraphError: ``crop`` is not the graph that this code exports.
        ParityError: the changed graph does not answer as the old one does.
        RepositoryError: the source was exported again in the meantime, or another export is running.
    """
    with staging(repository) as staged:
        if require_version(repository, source.version) != source:
            raise RepositoryError(f"version {source.version} of {repository} was exported again: calibrate it again")
        settings = replace(source.request.settings, threshold=calibration.threshold)
        for leaf in source.leaves:
            (staged / leaf).mkdir()
            file = source.file_in(repository, leaf)
            if leaf == "crop":
                old = file.read_bytes()
                new = with_threshold(old, calibration.threshold, asdict(settings))
                require_same_crops(old, new, calibration.threshold)
                (staged / leaf / file.name).write_bytes(new)
            else:
                link_or_copy(file, staged / leaf / file.name)
        crop = replace(source.leaves["crop"], sha256=hashlib.sha256(new).hexdigest(), bytes=len(new))
        manifest = replace(
            source,
            version=1 + max(one.version for one in read_manifests(repository)),
            request=replace(source.request, settings=settings),
            leaves={**source.leaves, "crop": crop},
            shipped=False,
            calibration=calibration,
        )
        put_in_place(staged, repository, manifest, serve=serve)
    return manifest


def link_or_copy(file: Path, to: Path) -> None:
    try:
        os.link(file, to)
    except OSError:  # as on file systems without hard links
        shutil.copy2(file, to)


def with_threshold(content: bytes, threshold: float, settings: dict[str, object]) -> bytes:
    """The graph ``crop`` with another threshold.

    The old constant stays if other nodes use the same number.

    Raises:
        GraphError: not exactly one node compares SCORE with a constant.
    """
    model = onnx.load_from_string(content)
    constants = {constant.name: constant for constant in model.graph.initializer}
    readers = [node for node in model.graph.node if "SCORE" in node.input]
    if [(node.op_type, node.input[0], node.input[1] in constants) for node in readers] != [
        ("GreaterOrEqual", "SCORE", True)
    ]:
        raise GraphError("crop does not compare SCORE with one threshold: export the models again")
    old, readers[0].input[1] = readers[0].input[1], THRESHOLD
    if old == THRESHOLD or not any(old in node.input for node in model.graph.node):
        model.graph.initializer.remove(constants[old])
    model.graph.initializer.append(numpy_helper.from_array(np.array(threshold, np.float32), THRESHOLD))
    for entry in model.metadata_props:
        if entry.key == "settings":
            entry.value = json.dumps(settings)
    return bytes(model.SerializeToString(deterministic=True))


def require_same_crops(old: bytes, new: bytes, threshold: float) -> None:
    """Raises ParityError if the new graph does not crop as the old one, with the new threshold."""
    import onnxruntime as ort

    canvases, sizes, _ = examples.canvases(examples.pictures(), CANVASES[0])
    at = np.float32(threshold)
    scores = np.array([at, np.nextafter(at, np.float32(-1)), np.nextafter(at, np.float32(2)), 0, 1, -1, at], np.float32)
    rows = len(canvases)
    inputs = {
        "CANVAS": canvases,
        "SIZE": sizes,
        "DECODED": np.zeros((rows, 1), np.int32),
        "CANVAS_BOX": np.array(examples.BOXES[:rows], np.float32),
        "SCORE": scores[:rows, None],
    }
    # The old threshold does not matter: an infinite score always reaches it, and no number never does.
    decided = {**inputs, "SCORE": np.where(inputs["SCORE"] >= at, np.float32(np.inf), np.float32(np.nan))}
    names = [tensor.name for tensor in LEAVES["crop"].outputs]
    actual, expected = (
        ort.InferenceSession(content, quiet_options(), providers=["CPUExecutionProvider"]).run(names, given)
        for content, given in ((new, inputs), (old, decided))
    )
    for name, one, other in zip(names, actual, expected, strict=True):
        if not np.array_equal(one, other):
            raise ParityError(f"crop with the threshold {threshold} gives another {name}: export the models again")
