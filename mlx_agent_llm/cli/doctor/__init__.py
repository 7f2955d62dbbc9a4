"""mlx-agent doctor."""
