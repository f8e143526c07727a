"""``python -m vlclip``: see ``--help``."""

import sys

from vlclip.cli import main

sys.exit(main())
