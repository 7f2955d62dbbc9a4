"""Blocks of keys and values on disk, found by what they are of. Knows no requests, no pools and no MLX."""
