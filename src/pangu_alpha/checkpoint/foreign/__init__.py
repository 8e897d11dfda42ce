"""Other programs' checkpoints, read without those programs."""
