"""Models of GGUF files."""
