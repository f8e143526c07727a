"""Every option of ``python -m export`` is used, or refused with a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import open_clip
import pytest

from export.__main__ import main
from export.build import make_request
from export.encoder_sources import resolve_encoder
from export.errors import ExportError, UsageError

Capture = pytest.CaptureFixture[str]
Options = Mapping[str, Any]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["use", "--encoder=mini", "--version=1"], id="use takes no model"),
        pytest.param(["use", "--stage", "--version=1"], id="use serves at once"),
        pytest.param(["show", "--version=2"], id="show lists all versions"),
        pytest.param(["pack-mini", "--out=elsewhere"], id="pack-mini writes to weights/mini"),
        pytest.param(["pack-mini", "--detector=best.pt"], id="pack-mini packs the mini models"),
        pytest.param(["models", "use"], id="one command at a time"),
    ],
)
def test_a_command_refuses_the_options_of_others(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert f"unrecognized arguments: {arguments[1]}" in capsys.readouterr().err


def test_the_help_of_a_command_names_no_other(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["calibrate", "--help"])
    assert capsys.readouterr().out.startswith("usage: python -m export calibrate [-h]")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["use"], "the following arguments are required: --version", id="none to serve"),
        pytest.param(["use", "--version="], "expected the number of a version, 1 or more, got ''", id="an empty one"),
        pytest.param(["--version=0"], "expected the number of a version, 1 or more, got '0'", id="none of Triton's"),
    ],
)
def test_a_version_is_a_number_from_1_on(arguments: list[str], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files and folders that options can name; nothing here loads them."""
    for name in ("best.pt", "tuned.pt", "other.pt"):
        (tmp_path / name).write_text(name)
    for name in ("clip", "clap"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "open_clip_config.json").write_text("{}")
        (folder / "open_clip_model.safetensors").write_text(name)
        (folder / "tokenizer.json").write_text("{}")
    for name in ("dino", "dano"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "tokenizer_config.json"):
            (tmp_path / name / file).write_text("{}")
    return tmp_path


ENCODERS = ["mini", "{0}/clip", "ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-16-SigLIP", "RN50x4"]
ENCODER_OPTIONS: dict[str, list[Any]] = {
    "pretrained": ["metaclip_400m", "laion2b_s34b_b79k", "openai", "webli"],
    "checkpoint": ["{0}/tuned.pt", "{0}/other.pt", "{0}/clap"],
    "tokenizer": ["{0}/clip", "{0}/clap"],
    "activation": ["gelu", "quickgelu"],
    "random_weights": [True],
}
DETECTORS = ["mini", "{0}/best.pt", "yolo-world-s", "yolo-world-n", "grounding-dino-tiny"]
DETECTOR_OPTIONS: dict[str, list[Any]] = {
    "detector_weights": ["{0}/tuned.pt", "{0}/other.pt", "{0}/dino", "{0}/dano"],
    "prompt_encoder": ["{0}/clip", "mini", "ViT-B-32", "ViT-B-16"],
    "random_weights": [True],
}


def outcome(request: Options) -> object:
    """What would be exported, or that it is refused."""
    try:
        return make_request(**{"detector": "mini", "encoder": "mini", "threshold": 0.2, **request})
    except ExportError:
        return "refused"


def subsets(options: Mapping[str, list[Any]]) -> Iterator[dict[str, list[Any]]]:
    """Every combination of options, the empty one first."""
    for names in chain.from_iterable(combinations(options, count) for count in range(len(options) + 1)):
        yield {name: options[name] for name in names}


def values_of(options: Mapping[str, list[Any]], files: Path) -> Iterator[dict[str, Any]]:
    """Each value of every option, beside the first values of the others."""
    first = {name: filled(values[0], files) for name, values in options.items()}
    yield first
    for name, values in options.items():
        for value in values[1:]:
            yield {**first, name: filled(value, files)}


def filled(value: Any, files: Path) -> Any:
    return value.format(files) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        *(pytest.param("encoder", name, ENCODER_OPTIONS, id=f"encoder {name}") for name in ENCODERS),
        *(pytest.param("detector", name, DETECTOR_OPTIONS, id=f"detector {name}") for name in DETECTORS),
    ],
)
def test_every_option_beside_every_model_is_used_or_refused(
    kind: str, name: str, options: dict[str, list[Any]], files: Path
) -> None:
    """An option is used if the request is another without it, or with another of its values."""
    accepted = 0
    for chosen in subsets(options):
        for given in values_of(chosen, files):
            request = {kind: filled(name, files), **given}
            found = outcome(request)
            if found == "refused":
                continue
            accepted += 1
            for option in given:
                without = {key: value for key, value in request.items() if key != option}
                others = [without, *({**request, option: filled(value, files)} for value in options[option])]
                assert any(outcome(other) != found for other in others), (option, request)
    assert accepted > 0


BESIDE_MINI: dict[str, tuple[list[str], str]] = {
    "checkpoint": (["--checkpoint={0}/tuned.pt"], "leave out --checkpoint"),
    "pretrained": (["--pretrained=openai"], "leave out --pretrained"),
    "activation": (["--activation=quickgelu"], "leave out --activation"),
    "tokenizer": (["--tokenizer={0}/clip"], "brings its own tokenizer"),
    "random weights": (["--random-weights"], "leave out --random-weights"),
    "detector weights": (["--detector-weights={0}/best.pt"], "leave out --detector-weights"),
    "a tag for a folder": (["--encoder={0}/clip", "--pretrained=openai"], "leave out --pretrained"),
    "random weights for a folder": (["--encoder={0}/clip", "--random-weights"], "leave out --random-weights"),
    "weights for a file": (
        ["--detector={0}/best.pt", "--detector-weights={0}/tuned.pt"],
        "leave out --detector-weights",
    ),
    "a folder for weights": (["--encoder=ViT-B-32", "--checkpoint={0}/clip"], "is a folder"),
    "prompts without weights": (["--prompt-encoder=ViT-B-16"], "--prompt-encoder ViT-B-16 names no weights"),
    "a hub": (["--encoder=hf-hub:laion/clip"], "download its repository into a folder"),
}


@pytest.mark.parametrize(("arguments", "message"), BESIDE_MINI.values(), ids=BESIDE_MINI)
def test_options_that_would_have_no_effect(arguments: list[str], message: str, files: Path, capsys: Capture) -> None:
    out = files / "out"
    assert main([f"--out={out}", *(argument.format(files) for argument in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_published_weights_have_the_activation_that_they_were_trained_with() -> None:
    """For every tag of every model, under the name with and without quickgelu."""
    for name, tag in open_clip.list_pretrained():
        trained = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        resolved = resolve_encoder(name, tag).name
        if name == "roberta-ViT-B-32":  # its tag does not say it, and open_clip warns of that
            trained = True
        assert bool(open_clip.get_model_config(resolved).get("quick_gelu")) == trained, (name, tag)
        assert tag in open_clip.list_pretrained_tags_by_model(resolved)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        pytest.param("ViT-B-32", {"pretrained": "openai"}, "ViT-B-32-quickgelu", id="tuned from openai"),
        pytest.param("ViT-B/32", {"pretrained": "openai"}, "ViT-B-32-quickgelu", id="the name with a slash"),
        pytest.param("ViT-B-32", {"pretrained": "laion2b_s34b_b79k"}, "ViT-B-32", id="tuned from laion"),
        pytest.param("ViT-B-32", {"activation": "quickgelu"}, "ViT-B-32-quickgelu", id="asked for quickgelu"),
        pytest.param("ViT-B-32", {"activation": "gelu"}, "ViT-B-32", id="asked for gelu"),
        pytest.param("ViT-B-32-quickgelu", {}, "ViT-B-32-quickgelu", id="the name says it"),
        pytest.param("ViT-B-16-SigLIP", {}, "ViT-B-16-SigLIP", id="no such variant"),
    ],
)
def test_activation_of_a_checkpoint(name: str, options: dict[str, Any], expected: str, files: Path) -> None:
    assert resolve_encoder(name, checkpoint=str(files / "tuned.pt"), **options).name == expected


REFUSED: dict[str, tuple[Callable[[str], object], str]] = {
    "unknown": (lambda file: resolve_encoder("ViT-B-32", checkpoint=file), "--activation gelu or quickgelu"),
    "unknown for a resnet": (lambda file: resolve_encoder("RN50", checkpoint=file), "does not say whether"),
    "not openai's": (lambda _: resolve_encoder("ViT-B-32", "openai", activation="gelu"), "was trained with quickgelu"),
    "not laion's": (
        lambda file: resolve_encoder("ViT-B-32", "laion2b_s34b_b79k", file, activation="quickgelu"),
        "was trained with gelu",
    ),
    "a tag of the other": (
        lambda _: resolve_encoder("ViT-B-32-quickgelu", "laion2b_s34b_b79k"),
        "--encoder ViT-B-32$",
    ),
    "against the name": (
        lambda file: resolve_encoder("ViT-B-32-quickgelu", checkpoint=file, activation="gelu"),
        "--encoder ViT-B-32$",
    ),
    "no variant": (
        lambda file: resolve_encoder("ViT-B-16-SigLIP", checkpoint=file, activation="quickgelu"),
        "open_clip has no ViT-B-16-SigLIP-quickgelu",
    ),
}


@pytest.mark.parametrize(("resolve", "message"), REFUSED.values(), ids=REFUSED)
def test_an_activation_that_cannot_be(resolve: Callable[[str], object], message: str, files: Path) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(str(files / "tuned.pt"))
