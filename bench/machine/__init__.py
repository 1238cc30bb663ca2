"""What this machine and checkout are, and what they did during a run; unknown is null."""
