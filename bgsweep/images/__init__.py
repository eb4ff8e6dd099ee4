"""Pixel code without randomness: decoding and compositing."""
