"""What `make audit` makes of pip-audit's words. A script speaks for it: its service cannot be asked from everywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from deploy import audit

FINE = {"name": "numpy", "version": "2.0", "vulns": []}
SKIPPED = {"name": "ours", "skip_reason": "Dependency not found on PyPI and could not be audited: ours (1)"}
HOLED = {"name": "pillow", "version": "9.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["9.1"]}]}
UNFIXED = {"name": "torch", "version": "1", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
OFFLINE = "requests.exceptions.ConnectionError: Failed to resolve 'pypi.org'"


@pytest.mark.parametrize(
    ("packages", "error", "status", "message"),
    [
        ([FINE], "", 0, "No known vulnerabilities"),
        ([FINE, SKIPPED], "", 0, "Not audited: Dependency not found on PyPI"),
        ([FINE, HOLED], "", 1, "pillow 9.0: PYSEC-1, fixed in 9.1"),
        ([UNFIXED], "", 1, "torch 1: PYSEC-2, not fixed yet"),
        ([SKIPPED], "", 0, "NOT AUDITED: Dependency not found on PyPI"),
        ([], "", 0, "NOT AUDITED: no packages in "),
        (None, f"Traceback\n{OFFLINE}", 0, f"NOT AUDITED: {OFFLINE}"),
        (None, "", 0, "NOT AUDITED: pip-audit said nothing"),
    ],
    ids=[
        "fine",
        "ours skipped",
        "a finding",
        "without a fix",
        "a mirror that knows nothing",
        "empty",
        "offline",
        "silent",
    ],
)
def test_says_what_was_found(tmp_path: Path, capsys, packages, error: str, status: int, message: str) -> None:
    script = tmp_path / "pip_audit.py"
    told = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    script.write_text(f"import sys\nsys.stdout.write({told!r})\nsys.stderr.write({error!r})\nsys.exit(1)\n")
    assert audit.main([str(tmp_path)], command=(sys.executable, str(script))) == status
    printed = capsys.readouterr()
    assert message in printed.out + printed.err


def test_does_not_wait_forever(tmp_path: Path, capsys) -> None:
    assert audit.main([str(tmp_path)], command=(sys.executable, "-c", "import time; time.sleep(60)"), seconds=0.2) == 0
    assert "NOT AUDITED: no answer within 0.2 s" in capsys.readouterr().err
