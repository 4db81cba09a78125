"""Evaluation: the held-out loss, and the proof that an exported adapter works elsewhere."""
