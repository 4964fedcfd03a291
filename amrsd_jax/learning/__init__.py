"""Updates the policy: losses, optimiser and mesh."""
