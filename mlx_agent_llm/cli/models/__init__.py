"""mlx-agent models."""
