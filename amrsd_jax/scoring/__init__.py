"""Log-probabilities of the policy and its teachers, and divergences between them."""
