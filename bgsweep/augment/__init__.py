"""Augmented views of an image, made from its pixels and its foreground mask."""
