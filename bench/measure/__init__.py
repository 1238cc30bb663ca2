"""One benchmark in this process: request, plan, accelerator, runs, records. The only clock."""
