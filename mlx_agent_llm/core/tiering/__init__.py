"""Between the pools and the tier: what goes to the disk, and what comes back before a request runs."""
