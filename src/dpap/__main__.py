"""`python -m dpap` is the command `dpap`."""

import sys

from dpap.cli import main

if __name__ == "__main__":
    sys.exit(main())
