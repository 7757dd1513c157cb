"""`python -m sluicegate` is the command `sluicegate`, for machines where the script is not on the path."""

import sys

from sluicegate.cli import main

if __name__ == "__main__":
    sys.exit(main())
