"""What a run keeps: checkpoints, metrics, the monitor and files."""
