"""The update: losses, optimizer and mesh."""
