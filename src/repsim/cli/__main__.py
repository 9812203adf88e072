"""``python -m repsim.cli``."""

import sys

from repsim.cli import main

if __name__ == "__main__":
    sys.exit(main())
