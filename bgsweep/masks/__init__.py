"""From photographs to foreground masks, and how good those are. What runs on many machines is `bgsweep.workflows.make_masks`."""
