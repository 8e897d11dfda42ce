"""What the ports of PanGu-alpha to PyTorch wrote: Hugging Face's form and Megatron's."""
