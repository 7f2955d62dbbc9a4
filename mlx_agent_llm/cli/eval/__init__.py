"""mlx-agent eval: what a model gets right, with the grammar and without it."""
