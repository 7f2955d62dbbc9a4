"""Where the keys and values of a request lie."""
