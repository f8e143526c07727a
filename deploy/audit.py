"""Ask whether the installed packages have known vulnerabilities, with pip-audit, in this Python or in those given.

    python -m deploy.audit .venv/lib/python3.11/site-packages .venv/tritonserver

Findings are listed and end with status 1. Packages that the service does not know, such as local builds, are named.
Where it cannot be reached, or knows none of the packages (as many mirrors), nothing was audited: that is said, and ends
with status 0, so that no build fails for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence

COMMAND = (sys.executable, "-m", "pip_audit")
SECONDS = 300.0


class NotAudited(Exception):
    """Nothing was; the message says why."""


def audit(folders: Sequence[str], command: Sequence[str] = COMMAND) -> tuple[list[str], list[str]]:
    """Findings, and what was not audited with the reason, one a line. ``command`` is pip-audit.

    Raises NotAudited where that is everything.
    """
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
        raise NotAudited(f"no answer within {SECONDS:.0f} s") from None
    except (ValueError, KeyError):
        raise NotAudited((done.stderr.strip() or "pip-audit said nothing").splitlines()[-1]) from None
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if packages and len(skipped) == len(packages):
        raise NotAudited(skipped[0])
    findings = [
        f"{package['name']} {package['version']}: {one['id']}, "
        + (f"fixed in {', '.join(one['fix_versions'])}" if one["fix_versions"] else "not fixed yet")
        for package in packages
        for one in package.get("vulns", ())
    ]
    return findings, skipped


def main(arguments: Sequence[str] | None = None, command: Sequence[str] = COMMAND) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="where packages are installed")
    try:
        findings, skipped = audit(parser.parse_args(arguments).folders, command)
    except NotAudited as error:
        print(f"NOT AUDITED: {error}\nRun `make audit` where pypi.org can be reached.", file=sys.stderr)
        return 0
    for reason in skipped:
        print(f"Not audited: {reason}", file=sys.stderr)
    print("\n".join(findings) or "No known vulnerabilities")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
