"""Ask whether the installed packages have known vulnerabilities, with pip-audit, in this Python or in those given.

    python -m deploy.audit .venv/lib/python3.11/site-packages .venv/tritonserver

Findings are listed and end with status 1. Where the service that knows them cannot be reached, or knows none of the
packages (as many mirrors), nothing was audited: that is said, and ends with status 0, so that no build fails for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence

COMMAND = (sys.executable, "-m", "pip_audit")
SECONDS = 300.0


def audit(folders: Sequence[str], command: Sequence[str] = COMMAND) -> tuple[list[str], str | None]:
    """Findings, one a line, and why nothing was audited if that is so. ``command`` is pip-audit."""
    paths = [option for folder in folders for option in ("--path", folder)]
    try:
        done = subprocess.run(
            [*command, "--format=json", "--progress-spinner=off", *paths],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], f"no answer within {SECONDS:.0f} s"
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["pip-audit said nothing"]
        return [], lines[-1]
    asked = [package for package in packages if "skip_reason" not in package]
    if packages and not asked:
        return [], packages[0]["skip_reason"]
    return [
        f"{package['name']} {package['version']}: {one['id']}, "
        + (f"fixed in {', '.join(one['fix_versions'])}" if one["fix_versions"] else "not fixed yet")
        for package in asked
        for one in package["vulns"]
    ], None


def main(arguments: Sequence[str] | None = None, command: Sequence[str] = COMMAND) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="where packages are installed")
    findings, hindrance = audit(parser.parse_args(arguments).folders, command)
    if hindrance:
        print(f"NOT AUDITED: {hindrance}\nRun `make audit` where pypi.org can be reached.", file=sys.stderr)
        return 0
    print("\n".join(findings) or "No known vulnerabilities")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
