"""Functions of numbers: intervals, summaries, attempts, stopping rules; none knows a record."""
