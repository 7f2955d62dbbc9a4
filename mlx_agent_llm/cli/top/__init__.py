"""mlx-agent top: a live view of engines in other processes."""
