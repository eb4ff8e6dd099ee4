"""`python -m bgsweep.cli`, the same as `bgsweep`."""

from bgsweep.cli.main import run

if __name__ == "__main__":
    run()
