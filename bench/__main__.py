"""`python -m bench`: the command `mnist-bench` where it is not installed."""

from bench.cli import main

main()
