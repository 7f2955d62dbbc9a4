"""Sets of JSON values: formulas of what a schema says, and the canonical types that they come to."""
