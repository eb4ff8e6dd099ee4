"""The paper's claim on real images: runs with and without background augmentation, paired by seed."""
