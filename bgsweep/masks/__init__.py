"""Foreground masks: methods that make them and measures of their quality."""
