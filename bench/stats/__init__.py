"""Functions of numbers: intervals, summaries, survival, stopping rules. Knows no record."""
