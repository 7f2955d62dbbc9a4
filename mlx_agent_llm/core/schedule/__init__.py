"""Who runs a step, and what is computed for nobody."""
