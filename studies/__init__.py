"""Studies made with bgsweep; each is a package of its own beside it."""
