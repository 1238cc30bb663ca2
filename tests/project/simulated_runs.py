"""A `mnist-bench` whose `run` makes simulated records at once; its other commands are real."""

STAND_IN = """#!{python}
import os, sys
sys.path.insert(0, {root!r})
if sys.argv[1] == "run":
    from bench.records import store
    from tests.analysis.gate_simulation import side
    words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
    assert words.keys() <= {{"--runs", "--results-dir", "--label"}}, words
    machine = {{"cpu": os.environ["CPU"]}} if "CPU" in os.environ else {{}}
    number = int(os.environ["NUMBER"])
    slower = float(os.environ["SLOWER"])
    for record in side(number, int(words["--runs"]), slower, environment=machine):
        store.save_record(
            record.model_copy(update={{"label": words.get("--label")}}),
            __import__("pathlib").Path(words.get("--results-dir", "results/local")),
        )
    sys.exit()
from bench.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The program; it is formatted with the Python to run it by and the project's root."""
