"""Ask whether the installed packages have known vulnerabilities, with pip-audit, in this Python or in those given.

    python -m deploy.audit .venv/lib/python3.11/site-packages .venv/tritonserver

Findings are listed and end with status 1; packages that the service does not know are named. Where the service cannot
be reached, or knows none of the packages (as many mirrors), nothing was audited: that is said, and ends with status 0,
so that no build fails for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

COMMAND = (sys.executable, "-m", "pip_audit")
SECONDS = 300.0


class NotAudited(Exception):
    """Says why."""


def audit(folders: Sequence[str], command: Sequence[str] = COMMAND, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """What pip-audit, which is ``command``, says of each package in ``folders``. Raises NotAudited."""
    paths = [option for folder in folders for option in ("--path", folder)]
    try:
        done = subprocess.run(
            [*command, "--format=json", "--progress-spinner=off", *paths],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        raise NotAudited(f"no answer within {seconds:g} s") from None
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["pip-audit said nothing"]
        raise NotAudited(lines[-1]) from None
    if not packages:
        raise NotAudited(f"no packages in {', '.join(folders)}")
    if all("skip_reason" in package for package in packages):
        raise NotAudited(packages[0]["skip_reason"])
    return packages


def main(arguments: Sequence[str] | None = None, command: Sequence[str] = COMMAND, seconds: float = SECONDS) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="where packages are installed")
    try:
        packages = audit(parser.parse_args(arguments).folders, command, seconds)
    except NotAudited as hindrance:
        print(f"NOT AUDITED: {hindrance}\nRun `make audit` where pypi.org can be reached.", file=sys.stderr)
        return 0
    for package in packages:
        if "skip_reason" in package:
            print(f"Not audited: {package['skip_reason']}", file=sys.stderr)
    findings = [
        f"{package['name']} {package['version']}: {one['id']}, "
        + (f"fixed in {', '.join(one['fix_versions'])}" if one["fix_versions"] else "not fixed yet")
        for package in packages
        for one in package.get("vulns", ())
    ]
    print("\n".join(findings) or "No known vulnerabilities")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
