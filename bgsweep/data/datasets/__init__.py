"""Image datasets: folders, packs, the bundled sample, and datasets made from other datasets."""
