"""How a text is completed within its token budget: the shortest end, what it takes, and the moment to write it."""
