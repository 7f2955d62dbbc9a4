"""How calls are written and read: formats as data, and the readers and grammars that are made of them."""
