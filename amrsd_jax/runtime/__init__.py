"""Keeps a run's checkpoints, metrics and files, and watches it for collapse."""
