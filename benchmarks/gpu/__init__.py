"""Measurements on one GPU in minutes: `python -m benchmarks.gpu`; `__main__` has the command, other files its parts."""
