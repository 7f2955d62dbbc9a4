"""From a schedule to the arrays of one forward."""
