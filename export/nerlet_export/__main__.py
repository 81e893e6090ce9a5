"""Run `nerlet-export` as `python -m nerlet_export`."""

import sys

from nerlet_export.cli import main

sys.exit(main())
