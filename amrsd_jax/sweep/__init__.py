"""Runs every combination of seeds and fields, one after the other on this machine, and reports on them together."""
