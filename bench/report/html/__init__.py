"""The HTML report: one page with figures and tables."""
