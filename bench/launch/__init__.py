"""Other processes: ranks, hosts, parallel seeds, and the sweeps and A/B comparisons of them."""
