"""From a checkpoint and prompts to text: sampling, cached decoding, task templates."""
