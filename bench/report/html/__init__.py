"""The HTML report: one page with figures and tables, for a browser without a network."""
