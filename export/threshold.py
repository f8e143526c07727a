"""Another threshold in exported models, without exporting them again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from export import examples
from export.errors import GraphError, ParityError, UsageError
from export.in_process import quiet_options
from export.place import put_in_place, staging
from export.stamp import restamp
from serving.errors import RepositoryError
from serving.repository.manifest import Calibration, Manifest, read_manifests, require_version
from serving.repository.specs import CANVASES, LEAVES
from serving.repository.versions import GIVEN_BY, given_by, recalibrated

THRESHOLD = "threshold"


def require_graphs(manifest: Manifest) -> None:
    """Raises UsageError for TensorRT plans, which cannot be changed, and for exports without versions."""
    if manifest.request.settings.format != "onnx":
        raise UsageError(
            f"version {manifest.version} consists of TensorRT plans, whose threshold is fixed: calibrate an export of "
            f"the same detector with --format onnx, then export the plans with the --threshold that it gives"
        )
    if not manifest.digests:
        raise UsageError(f"version {manifest.version} is of an older export, which cannot be served: export it again")


def write_calibrated(repository: Path, source: Manifest, calibration: Calibration, serve: bool) -> Manifest:
    """Write the models of ``source`` with the calibrated threshold as a new version, the next free number.

    ``crop`` has the threshold. It and ``encode_image`` name the version of the detector, which the threshold is part
    of. The other files are the same files, by hard links where possible.

    Raises:
        GraphError: a graph is not of the form that this code exports.
        ParityError: the changed ``crop`` does not answer as the old one does.
        RepositoryError: the source was exported again in the meantime, or another export is running.
    """
    settings = replace(source.request.settings, threshold=calibration.threshold)
    digests = recalibrated(source.digests, calibration.threshold)
    leaves = dict(source.leaves)
    with staging(repository) as staged:
        if require_version(repository, source.version) != source:
            raise RepositoryError(f"version {source.version} of {repository} was exported again: calibrate it again")
        for name, leaf in source.leaves.items():
            (staged / name).mkdir()
            file, target, versions = (
                source.file_in(repository, name),
                staged / name / leaf.file,
                given_by(name, digests),
            )
            if name != "crop" and versions == given_by(name, source.digests):
                link_or_copy(file, target)
                continue
            model = restamp(onnx.load(file), versions)
            if name == "crop":
                model = with_threshold(model, calibration.threshold, asdict(settings))
                require_same_crops(file.read_bytes(), model.SerializeToString(), calibration.threshold)
            content = model.SerializeToString(deterministic=True)
            target.write_bytes(content)
            leaves[name] = replace(leaf, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        manifest = replace(
            source,
            version=1 + max(one.version for one in read_manifests(repository)),
            request=replace(source.request, settings=settings),
            leaves=leaves,
            digests=digests,
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


def with_threshold(model: onnx.ModelProto, threshold: float, settings: Mapping[str, object]) -> onnx.ModelProto:
    """Give the graph ``crop`` another threshold. The model is changed, and returned.

    The old constant stays if other nodes use the same number.

    Raises:
        GraphError: not exactly one node compares SCORE with a constant.
    """
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
    return model


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
    names = [tensor.name for tensor in LEAVES["crop"].outputs if tensor.name not in GIVEN_BY["crop"]]
    actual, expected = (
        ort.InferenceSession(content, quiet_options(), providers=["CPUExecutionProvider"]).run(names, given)
        for content, given in ((new, inputs), (old, decided))
    )
    for name, one, other in zip(names, actual, expected, strict=True):
        if not np.array_equal(one, other):
            raise ParityError(f"crop with the threshold {threshold} gives another {name}: export the models again")
