"""From a photograph and its foreground mask to the augmented views that the methods compare."""
