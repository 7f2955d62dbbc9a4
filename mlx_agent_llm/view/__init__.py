"""A live view of engines, on a terminal and in a notebook."""
