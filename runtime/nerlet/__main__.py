"""`python -m nerlet` is the `nerlet` command."""

import sys

from nerlet.cli import main

if __name__ == "__main__":
    sys.exit(main())
