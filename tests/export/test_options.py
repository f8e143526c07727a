"""Every option of ``python -m export`` is used, or refused with a message."""

from __future__ import annotations

import pytest

from export.__main__ import main

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["use", "--encoder=mini"], id="use takes no model"),
        pytest.param(["use", "--stage"], id="use serves at once"),
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
