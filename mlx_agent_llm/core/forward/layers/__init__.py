"""What stands in a model's layers where mlx-lm has its caches."""
