"""Parts of bgsweep in a package of their own."""
