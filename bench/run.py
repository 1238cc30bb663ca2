"""`accelerate launch bench/run.py`: the command `mnist-bench run`, and nothing of its own."""

import os
import sys

# Run as a script, Python looks for modules beside this file first: there `bench` is not found,
# and a file of ours could shadow one of the standard library's. Not by pathlib: a signal may come
# while that is imported.
if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120

from bench.cli import main_of

if __name__ == "__main__":
    main_of(["run", *sys.argv[1:]])
