"""The ways in which arguments of a call are written."""
