"""What the process needs around MLX: a fast BLAS before it, its settings, its memory, and who may use it."""
