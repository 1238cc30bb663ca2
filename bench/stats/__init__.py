"""Functions of numbers: intervals, summaries, survival, stopping rules; none knows a record."""
