"""What a GPU shows in minutes: `python -m benchmarks.gpu`; `__main__` has the command, each other file a part."""
