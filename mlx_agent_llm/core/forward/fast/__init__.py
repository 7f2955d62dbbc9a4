"""Modules of mlx-lm in fewer and faster operations, each tried against the module itself."""
