"""Makes the privileged contexts that the teacher reads, most of all the reflections of the policy."""
