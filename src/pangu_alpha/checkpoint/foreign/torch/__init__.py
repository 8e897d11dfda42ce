"""What the ports of PanGu-alpha to PyTorch wrote: Hugging Face's form and Megatron's."""

__all__ = ["huggingface", "megatron", "ports", "torch_file"]
