"""The tuner: the profile that it writes, its verdicts, and a whole run on a server with toy models."""

from __future__ import annotations

import os
import re
from pathlib import Path

import optuna
import pytest

from benchmarks.runs import OK, Request, frame
from benchmarks.slo import parse
from benchmarks.tune import Result, best_of, judge, main, open_study, settings_of, space_of, write_profile
from serving.paths import REPOSITORIES
from serving.repository.check import find_problems
from serving.repository.profiles import EMBEDDED_CPU, read_config
from tests.pictures import encode, picture

MODELS, ENSEMBLES = REPOSITORIES
CORES = len(os.sched_getaffinity(0))


def test_the_current_settings_can_be_chosen() -> None:
    current = settings_of(EMBEDDED_CPU, MODELS)
    assert current == {"delay": 0, "preferred": 16, "instances": 1, "threads": CORES, "decoders": 1}
    odd = dict.fromkeys(current, 77)
    assert all(77 in values and len(values) > 2 for values in space_of(odd).values())


def test_settings_become_a_valid_profile(tmp_path: Path) -> None:
    settings = {"delay": 500, "preferred": 8, "instances": 2, "threads": 3, "decoders": 4}
    write_profile(tmp_path / "tuned", settings, EMBEDDED_CPU, "# A remark.\n")
    assert find_problems(REPOSITORIES, tmp_path / "tuned") == []
    assert settings_of(tmp_path / "tuned", MODELS) == settings
    kinds = [
        read_config(MODELS / "crop", profile).instance_group[0].kind for profile in (EMBEDDED_CPU, tmp_path / "tuned")
    ]
    assert kinds[0] == kinds[1]
    back = settings_of(EMBEDDED_CPU, MODELS)
    write_profile(tmp_path / "back", back, tmp_path / "tuned")
    assert settings_of(tmp_path / "back", MODELS) == back


def result(rate: float, milliseconds: float) -> Result:
    return Result(frame([Request(0, 0, milliseconds / 1e3, "vlclip", "product_image", 1, OK)] * round(rate)), 1.0)


@pytest.mark.parametrize(
    ("before", "after", "accepted", "sentence"),
    [
        ([(100, 50)], [(100, 50)], False, "it is not better by more than chance: 100.0 photos a second against 100.0"),
        ([(100, 50)], [(120, 50)], True, "120.0 photos a second against 100.0 (1.200 to 1.200 times); p99 50 ms"),
        ([(100, 50), (120, 50)], [(101, 50), (118, 50)], False, "it is not better by more than chance"),
        ([(100, 50)], [(80, 20)], False, "it is not better by more than chance"),
        ([(100, 50)], [(200, 150)], False, "it does not hold p99=100ms in the comparison: p99 150 ms against 50 ms"),
        ([(100, 150)], [(90, 80)], True, "it holds p99=100ms, which the current profile does not: p99 80 ms"),
        ([(100, 101), (100, 99)], [(100, 98), (100, 100)], False, "it is not better by more than chance"),
        ([(100, 150)], [(200, 150)], False, "it does not hold p99=100ms"),
    ],
)
def test_a_verdict_needs_more_than_chance(
    before: list[tuple[float, float]], after: list[tuple[float, float]], accepted: bool, sentence: str
) -> None:
    old, new = ([result(*turn) for turn in turns] * 6 for turns in (before, after))
    found = judge(old, new, parse("p99=100ms"))
    assert found[0] == accepted
    assert found[1].startswith(sentence)


@pytest.mark.parametrize(
    ("trials", "best"),
    [([], None), ([(100, 0.3)], None), ([(100, 0.3), (80, 0.1)], 1), ([(80, 0.1), (90, 0.2), (100, 0.3)], 1)],
)
def test_the_best_trial_is_the_fastest_within_the_bound(trials: list[tuple[float, float]], best: int | None) -> None:
    study = optuna.create_study(direction="maximize")
    for rate, latency in trials:
        study.add_trial(optuna.trial.create_trial(value=rate, user_attrs={"latency": latency}))
    found = best_of(study, parse("p99=200ms"))
    assert (found.number if found else None) == best


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--slo", "p99"], '"p99" is not an SLO: expected one like p99=50ms'),
        (["--slo", "throughput=3"], "--slo must bound a percentile"),
        (["--slo", "p99=1s", "--out", str(MODELS.parent / "serving/profiles/embedded-cpu")], "written by hand"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_two_trials_find_a_better_profile(
    toy_repositories: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Almost every profile is better than one in which every graph waits 40 ms."""
    monkeypatch.delenv("VLCLIP_ORT_THREADS", raising=False)
    slow = {"delay": 40000, "preferred": 0, "instances": 1, "threads": 1, "decoders": 1}
    write_profile(tmp_path / "slow", slow, EMBEDDED_CPU)
    (tmp_path / "photo.jpg").write_bytes(encode(picture(), "JPEG"))
    models, ensembles = map(str, toy_repositories)
    arguments = ["--model-repository", models, "--ensembles", ensembles, "--base", str(tmp_path / "slow")]
    arguments += ["--photos", str(tmp_path), "--study", str(tmp_path / "study.db"), "--out", str(tmp_path / "tuned")]
    arguments += ["--trials", "2", "--turns", "1", "--seconds", "0.2", "--concurrency", "2"]
    monkeypatch.setattr("benchmarks.tune.MAX_PAIRS", 3)
    assert main([*arguments, "--slo", "p50=10s"]) == 0
    told = capsys.readouterr()
    assert re.search(r"trial +0 .* delay 40000", told.err)
    assert f"Serve it: python -m serving start --profile {os.path.relpath(tmp_path / 'tuned')}" in told.out
    assert settings_of(tmp_path / "tuned", MODELS)["delay"] < 40000
    assert (tmp_path / "tuned" / "detect.pbtxt").read_text().startswith("# Written by python -m benchmarks.tune --slo")

    (name,) = optuna.get_all_study_names(f"sqlite:///{tmp_path}/study.db")
    assert len(open_study(tmp_path / "study.db", name).trials) == 2
