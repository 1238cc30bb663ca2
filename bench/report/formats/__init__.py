"""Rows to other tools' formats, one file a format; the columns are `bench.analysis.columns`'s."""
