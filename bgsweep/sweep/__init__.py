"""Many experiments under Ray Tune."""
