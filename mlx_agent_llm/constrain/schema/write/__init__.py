"""The rules of a grammar for the values of canonical types, in a notation."""
