"""mlx-agent bench."""
