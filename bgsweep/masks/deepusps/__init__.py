"""Masks learned without labels by self-training (DeepUSPS, Nguyen et al. 2019)."""
