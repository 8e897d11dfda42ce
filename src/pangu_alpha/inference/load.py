"""From a training run's folder to a model ready to generate: newest whole checkpoint, vocabulary, weights.

Never starts from random weights: whatever is missing, damaged or does not fit is an error.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from mindspore import Tensor

from pangu_alpha.checkpoint.format import MANIFEST, MARKER, Checkpoint, compare_tensors, read_checkpoint
from pangu_alpha.checkpoint.store import CheckpointStore
from pangu_alpha.checkpoint.tensor_file import CheckpointError
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import build
from pangu_alpha.config.zoo import TokenizerCard
from pangu_alpha.inference.generate import Generator
from pangu_alpha.inference.text import TextGenerator
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.text.tokenizer import PanguTokenizer

logger = logging.getLogger(__name__)

VOCABULARY = "vocab.model"
END_OF_DOCUMENT = "end_of_document"  # key of a manifest's state


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with its tokenizer.

    Args:
        model: With the checkpoint's weights.
        tokenizer: The one it was trained with.
        end_of_document: Id between documents in its training data.
        checkpoint: Where the weights are from.
        step: Optimizer steps they had.
    """

    model: PanguAlpha
    tokenizer: PanguTokenizer
    end_of_document: int
    checkpoint: Path
    step: int

    def text_generator(self, batch_size: int = 1, context: int | None = None) -> TextGenerator:
        """A generator that never yields control ids, <unk>, or ids the vocabulary does not have.

        Args:
            batch_size: See Generator.
            context: See Generator.
        """
        absent = range(self.tokenizer.vocab_size, self.model.config.vocab_size)
        banned = self.tokenizer.control_ids | {self.tokenizer.unk_id, *absent}
        banned -= {self.end_of_document}
        generator = Generator(self.model, self.end_of_document, batch_size, context, banned)
        return TextGenerator(generator, self.tokenizer)


def load_for_inference(
    path: str | Path, tokenizer: str | Path | None = None, end_of_document: str | None = None
) -> LoadedModel:
    """Loads a model and its tokenizer.

    Args:
        path: A run's output folder, its `checkpoints` folder, or one checkpoint; of several checkpoints the
            newest whole one is taken.
        tokenizer: The vocabulary; by default vocab.model in the checkpoint or in a folder around it.
        end_of_document: Name of the control piece between documents; by default what the checkpoint says,
            else that of a model card that says nothing.

    Raises:
        ValueError: There is no whole checkpoint, no vocabulary, or they do not fit together.
    """
    checkpoint = open_newest(Path(path))
    manifest = checkpoint.manifest
    if "model" not in manifest.config:
        raise CheckpointError(f"{checkpoint.path}: its {MANIFEST} does not say which model it is of")
    config = build(ModelConfig, manifest.config["model"], "model")
    vocabulary = _open_tokenizer(checkpoint, tokenizer, config)
    name = end_of_document or manifest.state.get(END_OF_DOCUMENT, TokenizerCard().end_of_document)
    ends = vocabulary.id_of(name)
    if ends not in vocabulary.control_ids:
        raise ValueError(f"end of document: {name!r} is an ordinary piece of the vocabulary, not a control")
    model = PanguAlpha(config, seed=None, operators=operators_for(config, decoding=True))
    load_weights(model, checkpoint)
    logger.info("%s: loaded, step %d", checkpoint.path, manifest.step)
    return LoadedModel(model, vocabulary, ends, checkpoint.path, manifest.step)


def open_newest(path: Path) -> Checkpoint:
    """The checkpoint at a path, or the newest whole one of the run there, every byte of it verified.

    Raises:
        ValueError: There is none; the message says what was looked for.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such folder; give a run's output folder or a checkpoint")
    if (path / MARKER).exists() or (path / MANIFEST).exists():
        return read_checkpoint(path)
    for root in (path, path / "checkpoints"):
        newest = CheckpointStore(root).newest()
        if newest is not None:
            return read_checkpoint(newest, verify=False)
    raise CheckpointError(
        f"{path}: no whole checkpoint in it, nor in its folder checkpoints; give the output folder of a run "
        "that has saved one"
    )


def load_weights(model: PanguAlpha, checkpoint: Checkpoint) -> None:
    """Sets every parameter of a model from a checkpoint.

    Raises:
        CheckpointError: Tensors are missing, too many, or of another shape; nothing was set then.
    """
    parameters = dict(model.parameters_and_names())
    expected = {name: (parameter.shape, None) for name, parameter in parameters.items()}
    compare_tensors(expected, checkpoint.specs("model"), str(checkpoint.path))
    for name, array in checkpoint.load("model").items():
        parameters[name].set_data(Tensor(array, parameters[name].dtype))


def _open_tokenizer(checkpoint: Checkpoint, given: str | Path | None, config: ModelConfig) -> PanguTokenizer:
    folders = [checkpoint.path, *checkpoint.path.absolute().parents[:2]]
    files = [Path(given)] if given is not None else [folder / VOCABULARY for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        looked = ", ".join(map(str, files))
        raise ValueError(f"no vocabulary: looked for {looked}; name the model's with --tokenizer FILE")
    tokenizer = PanguTokenizer(file)
    expected = checkpoint.manifest.tokenizer
    if expected is not None and tokenizer.digest != expected:
        raise ValueError(
            f"{file}: not the vocabulary {checkpoint.path} was trained with (digest {tokenizer.digest[:12]}, "
            f"not {expected[:12]}); name the right one with --tokenizer FILE"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{file}: has {tokenizer.vocab_size} pieces, the model only {config.vocab_size}; "
            "name the model's own with --tokenizer FILE"
        )
    return tokenizer
