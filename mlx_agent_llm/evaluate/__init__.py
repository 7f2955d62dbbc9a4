"""What a model gets right with the grammar and without it: BFCL's calls, schemas, and letters to JSON."""
