"""`python -m bench`: the command `mnist-bench` where it is not installed."""

import sys

from bench.cli import main

sys.exit(main())
