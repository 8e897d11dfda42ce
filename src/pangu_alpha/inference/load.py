"""Loads a checkpoint of any form as a model that is ready to generate: weights, vocabulary, end of document.

Never starts from random weights: anything missing, damaged or unsuitable is an error.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from mindspore import Tensor

from pangu_alpha.checkpoint.foreign.torch.ports import stated_end_of_document, vocabulary_places
from pangu_alpha.checkpoint.moving.reading import coverage_problems, read_box
from pangu_alpha.checkpoint.naming import VOCABULARY
from pangu_alpha.checkpoint.native.format import MANIFEST, compare_tensors
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.summary import shipped_name
from pangu_alpha.checkpoint.tensors import Source, whole
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import pangu_config
from pangu_alpha.config.zoo import TokenizerCard, load_model_card
from pangu_alpha.files.shown import shown
from pangu_alpha.inference.generate import Generator
from pangu_alpha.inference.text import TextGenerator
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.text.tokenizer import PanguTokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with its tokenizer.

    Args:
        tokenizer: The tokenizer that the model was trained with.
        end_of_document: Id between documents in its training data.
        checkpoint: Folder or file of the weights.
        step: Number of optimizer steps, if the checkpoint records it, else 0.
        form: Form of the checkpoint, in words.
        notes: What was assumed or ignored in reading it.
    """

    model: PanguAlpha
    tokenizer: PanguTokenizer
    end_of_document: int
    checkpoint: Path
    step: int
    form: str = ""
    notes: tuple[str, ...] = ()

    def text_generator(self, batch_size: int = 1, context: int | None = None) -> TextGenerator:
        """Returns a generator that never yields control ids, <unk>, or ids that the vocabulary does not have.

        Args:
            batch_size, context: See Generator.
        """
        absent = range(self.tokenizer.vocab_size, self.model.config.vocab_size)
        banned = self.tokenizer.control_ids | {self.tokenizer.unk_id, *absent}
        banned -= {self.end_of_document}
        generator = Generator(self.model, self.end_of_document, batch_size, context, banned)
        return TextGenerator(generator, self.tokenizer)


@dataclass(frozen=True)
class DescribedModel:
    """A trained model whose weights are not loaded yet.

    Args:
        end_of_document: Id between documents in its training data.
    """

    source: Source
    config: ModelConfig
    tokenizer: PanguTokenizer
    end_of_document: int

    @property
    def context(self) -> int:
        """Most ids that the model reads at once."""
        return self.config.seq_length


def describe_for_inference(
    path: str | Path,
    tokenizer: str | Path | None = None,
    end_of_document: str | None = None,
    options: OpenOptions | None = None,
) -> DescribedModel:
    """Reads what a checkpoint says about its model, and opens its vocabulary; see `load_for_inference`.

    Raises:
        ValueError: There is no complete checkpoint or no vocabulary, or they do not fit together.
    """
    source = open_source(path, options)
    manifest = source.manifest
    for note in source.notes:
        logger.warning("%s: %s", source.path, note)
    if "model" not in manifest.config:
        raise CheckpointError(f"{source.path}: its {MANIFEST} does not say which model it is of")
    config = pangu_config(manifest.config["model"], "generation")
    vocabulary = _open_tokenizer(source, tokenizer, config)
    return DescribedModel(
        source, config, vocabulary, _end_of_document(source, config, vocabulary, end_of_document)
    )


def load_for_inference(
    path: str | Path,
    tokenizer: str | Path | None = None,
    end_of_document: str | None = None,
    options: OpenOptions | None = None,
    decoding: bool = True,
) -> LoadedModel:
    """Loads a model and its tokenizer.

    Args:
        path: A checkpoint of any form that `checkpoint.open.open_source` knows; or a run's output folder or
            its `checkpoints` folder, of which the newest complete checkpoint is taken.
        tokenizer: The vocabulary; None looks for vocab.model in the checkpoint and the folders around it.
        end_of_document: Name of the control piece between documents. None takes what the checkpoint states,
            else what the card of the shipped model of this shape states, else a card's default.
        options: What the checkpoint of another program may not state itself.
        decoding: True chooses the operators that are fast for single tokens. False chooses those for whole
            sequences, as for scoring given texts, and a model without dropout. Both compute the same
            function.

    Raises:
        ValueError: There is no complete checkpoint or no vocabulary, or they do not fit together.
    """
    described = describe_for_inference(path, tokenizer, end_of_document, options)
    source, config = described.source, described.config
    if not decoding:  # on Ascend, whole sequences use flash attention, which does not support dropout
        config = replace(config, dropout=0.0)
    model = PanguAlpha(config, seed=None, operators=operators_for(config, decoding=decoding))
    load_weights(model, source)
    step = source.manifest.step
    logger.info("%s: loaded, %s, step %d", source.path, source.form, step)
    return LoadedModel(
        model, described.tokenizer, described.end_of_document, source.path, step, source.form, source.notes
    )


def load_weights(model: PanguAlpha, source: Source) -> None:
    """Sets every parameter of a model from a checkpoint, one tensor at a time, and compares checksums.

    Raises:
        CheckpointError: Tensors are missing, too many, incomplete or of another shape; then no parameter was
            changed. Or the bytes of a tensor are damaged; then some parameters may have been changed.
    """
    parameters, stored = dict(model.parameters_and_names()), source.tensors["model"]
    expected = {name: (parameter.shape, None) for name, parameter in parameters.items()}
    compare_tensors(expected, {name: (each.shape, None) for name, each in stored.items()}, str(source.path))
    problems = [line for name, each in stored.items() for line in coverage_problems(name, each)]
    if problems:
        raise CheckpointError("\n  - ".join([f"{source.path}: not whole:", *problems]))
    for name, each in stored.items():
        parameters[name].set_data(
            Tensor(read_box(each, whole(each.shape), name=name), parameters[name].dtype)
        )


def _end_of_document(
    source: Source, config: ModelConfig, vocabulary: PanguTokenizer, given: str | None
) -> int:
    shipped = shipped_name(config)
    card = load_model_card(shipped).tokenizer if shipped else TokenizerCard()
    name = given or stated_end_of_document(source) or card.end_of_document
    ends = vocabulary.id_of(name)
    if ends not in vocabulary.control_ids:
        raise ValueError(f"end of document: {name!r} is an ordinary piece of the vocabulary, not a control")
    return ends


def _open_tokenizer(source: Source, given: str | Path | None, config: ModelConfig) -> PanguTokenizer:
    files = [Path(given)] if given is not None else vocabulary_places(source.path)
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        looked = ", ".join(map(str, files))
        raise ValueError(
            f"no vocabulary: looked for {looked}; put the model's {VOCABULARY} there, or name it with "
            "--vocabulary FILE"
        )
    tokenizer = PanguTokenizer(file)
    expected = source.manifest.tokenizer
    if expected is not None and tokenizer.digest != expected:
        raise ValueError(
            f"{file}: not the vocabulary {source.path} was trained with (digest {tokenizer.digest[:12]}, "
            f"not {expected[:12]}); name the right one with --vocabulary FILE"
        )
    if lost := tokenizer.lost_pieces:  # no error: a network trained with it has seen <unk> in these places
        logger.warning(
            "%s: text never yields its pieces for %s, each of these in a prompt becomes <unk>; its network "
            "cannot write them either",
            shown(file),
            " and ".join(lost),
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{file}: has {tokenizer.vocab_size} pieces, the model only {config.vocab_size}; "
            "name the model's own with --vocabulary FILE"
        )
    return tokenizer
