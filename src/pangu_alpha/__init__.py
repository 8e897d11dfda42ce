"""PanGu-alpha for MindSpore: the Chinese language model, from raw text to generated text.

Public names load on first use, so that what needs no MindSpore does not import it.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ModelConfig": "pangu_alpha.config.model",
    "load_model_config": "pangu_alpha.config.zoo",
    "load_model_card": "pangu_alpha.config.zoo",
    "load_train_config": "pangu_alpha.config.run",
    "PanguAlpha": "pangu_alpha.model.pangu",
    "PanguTokenizer": "pangu_alpha.text.tokenizer",
    "load_released": "pangu_alpha.checkpoint.foreign.mindspore.released",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
