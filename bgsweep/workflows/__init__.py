"""Commands from start to end, one module each."""
