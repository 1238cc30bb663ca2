"""Other processes: ranks, hosts, parallel seeds, sweeps and A/B comparisons."""
