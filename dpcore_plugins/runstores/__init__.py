"""Run stores: what is remembered of runs."""
