"""mlx-agent demo: several agents with real tools on one engine, shown while they run."""
