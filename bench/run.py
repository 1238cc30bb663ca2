"""`accelerate launch bench/run.py`: the command `mnist-bench run`, and nothing of its own."""

import sys
from pathlib import Path

# Run as a script, Python looks for modules beside this file first: there `bench` is not found,
# and a file of ours could shadow one of the standard library's.
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.cli import start
from mnist_cnn.rank import exit_process

if __name__ == "__main__":
    exit_process(start(["run", *sys.argv[1:]]))
