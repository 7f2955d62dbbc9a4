"""mlx-agent extract: documents to JSON lines of one schema."""
