"""Evaluators, one module each: an encoder in, named values out."""
