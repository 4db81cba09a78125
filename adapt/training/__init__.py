"""Training: the one-screen step, the loop, checkpoints, and the run's folder."""
