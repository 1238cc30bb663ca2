"""One benchmark in this process, from request to record; the only room with a clock."""
