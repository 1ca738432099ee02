"""I/O managers: where results are stored."""
