"""mlx-agent kv."""
