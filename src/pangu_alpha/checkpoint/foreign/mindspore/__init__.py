"""The forms of checkpoints that MindSpore, MindFormers and the releases of 2021 and 2023 write."""

__all__ = [
    "ckpt_file",
    "export",
    "mindformers_folder",
    "released",
    "released_folder",
    "slices",
    "strategy_file",
]
