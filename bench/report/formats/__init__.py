"""Results in the formats of other tools, one file per format; see `bench.analysis.columns`."""
