"""Computes log-probabilities of the policy and its teachers, and divergences between them."""
