"""Records to numbers, rows and verdicts. No printing, no torch."""
