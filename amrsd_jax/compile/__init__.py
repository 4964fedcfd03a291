"""Compiles the programs of a run for hardware that is not there, and reads what its compiler says of them."""
