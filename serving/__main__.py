"""``python -m serving``: see ``--help``."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "start": ("serving.server.start", "start Triton with the models, and keep it working"),
    "probe": ("serving.server.probe", "check whether a server is ready, or live"),
    "check": ("serving.repository.check", "check configs, profiles, pipelines and graphs against each other"),
    "write": ("serving.repository.write", "write a repository for a tritonserver that you start yourself"),
}
USAGE = (
    "usage: python -m serving {"
    + ",".join(COMMANDS)
    + "} [option ...]\n\ncommands:\n"
    + "".join(f"  {name:<8}{what}\n" for name, (_, what) in COMMANDS.items())
    + "\n`python -m serving COMMAND --help` lists the options of a command."
)


def main() -> int:
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        module, _ = COMMANDS[sys.argv.pop(1)]
        code: int = importlib.import_module(module).main()
        return code
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(USAGE)
        return 0
    problem = f"there is no command {sys.argv[1]!r}" if sys.argv[1:] else "expected a command"
    print(f"{USAGE}\n\nerror: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
