"""Records to numbers, rows and verdicts; prints nothing and imports no torch."""
