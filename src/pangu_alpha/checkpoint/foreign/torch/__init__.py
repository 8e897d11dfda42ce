"""The forms of PanGu-alpha's ports to PyTorch: Hugging Face's and Megatron-LM's."""

__all__ = ["huggingface", "megatron", "ports", "torch_file"]
