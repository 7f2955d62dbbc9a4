"""Whether this device computes what it should, and how fast: what `mlx-agent doctor --verify` shows."""
