"""Make the Grafana dashboard.

python -m deploy.grafana                                        write dashboards/vlclip.json
python -m deploy.grafana --draw http://localhost:9090 out.png   draw what a Prometheus has for each panel
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.grafana.dashboard import build

FILE = Path(__file__).parent / "dashboards" / "vlclip.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.grafana", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draw", nargs=2, metavar=("URL", "PNG"), help="from the Prometheus at URL")
    parser.add_argument("--minutes", type=float, default=60, help="that are drawn, up to now (%(default)s)")
    options = parser.parse_args()
    if options.draw:
        from deploy.grafana.draw import draw

        draw(build(), options.draw[0], Path(options.draw[1]), options.minutes)
    else:
        FILE.write_text(build(), encoding="utf-8")


if __name__ == "__main__":
    main()
