"""What this machine and checkout are, and what they did meanwhile. Unknown is null."""
