"""The paper's claim on real photographs: runs with and without background augmentation, paired by seed."""
