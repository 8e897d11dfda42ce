"""Registers PanGu-alpha's config, model and tokenizer with MindFormers 1.9 when it is imported.

Adds no mathematics: the model is a PanguAlpha, the tokenizer a PanguTokenizer. Only this module imports
mindformers, whose import takes seconds and writes logs to ./output (or to LOG_MF_PATH).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import mindspore as ms
from mindformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from mindformers.generation import GenerationConfig
from mindformers.models import PretrainedConfig, PreTrainedModel, PreTrainedTokenizer
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindformers.wrapper import MFTrainOneStepCell
from mindspore import nn, ops

from pangu_alpha.checkpoint.foreign.mindspore.mindformers_folder import MODEL_TYPE
from pangu_alpha.checkpoint.native.durable import appearing_folder
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import ConfigError, build
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.files.writing import write_bytes
from pangu_alpha.inference.load import VOCABULARY, load_for_inference
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.text.tokenizer import CONTROL_NAMES, UNKNOWN, PanguTokenizer

_SHAPE = dataclasses.asdict(load_model_config("2_6b"))
_LIKENESS = 0.85  # ratio of difflib from which an unknown key is taken for a misspelt field of ModelConfig


@MindFormerRegister.register(MindFormerModuleType.CONFIG)
class PanguAlphaConfig(PretrainedConfig):
    """A ModelConfig in MindFormers' form.

    Args:
        **kwargs: Fields of ModelConfig, each with the 2.6B model's value as default; pad_token_id and
            eos_token_id, the ids of <pad> and of the end of a document; and any other key of a MindFormers
            config.

    Raises:
        ConfigError: Fields are misspelt, have the wrong type or break a rule; the message lists all of them.
    """

    model_type = MODEL_TYPE

    def __init__(self, **kwargs: Any) -> None:
        shape = {name: kwargs.pop(name, default) for name, default in _SHAPE.items()}
        _refuse_misspelt(kwargs)
        for name, value in dataclasses.asdict(build(ModelConfig, shape)).items():
            setattr(self, name, value)
        self.is_dynamic = kwargs.pop("is_dynamic", False)  # MindFormers 1.9's generate requires the attribute
        super().__init__(**kwargs)

    @property
    def model_config(self) -> ModelConfig:
        """The shape as a ModelConfig, validated again because attributes may have been set since.

        Raises:
            ConfigError: Fields have the wrong type or break a rule, or `use_past` is on; the message lists
                all.
        """
        if getattr(self, "use_past", False):
            raise ConfigError(
                [
                    "use_past: MindFormers' paged key-value cache is not supported; leave it off, or "
                    "generate with pangu_alpha.inference, which has a cache of its own"
                ]
            )
        return build(ModelConfig, {name: getattr(self, name) for name in _SHAPE})


@MindFormerRegister.register(MindFormerModuleType.MODELS)
class PanguAlphaForCausalLM(PreTrainedModel):
    """A PanguAlpha that MindFormers can load, save, call and generate with.

    Args:
        config: The shape; if its `checkpoint_name_or_path` is set, that file is loaded.
        network: An existing PanguAlpha to wrap, whose parameters get the prefix "network."; by default a new
            one with random weights.

    Inputs:
        - **input_ids** (Tensor) - int32 [B, S].
        - **labels** (Tensor) - int32 [B, S], the token that follows each input, already shifted; a negative
          label does not count, nor does the label of an input that is <pad>. None: logits are returned.
        - **position_ids** (Tensor) - int32 [B, S]; 0 to S-1 by default.
        - **attention_mask** (Tensor) - [B, S, S], 1 = may attend, or [B, S], 1 = no padding (causal then);
          causal by default.
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout key of each row; None: no dropout.

    Outputs:
        Tensor [B, S, V], logits in the compute type; with labels a float32 scalar,
        sum(nll * counts) / (sum(counts) + 1e-5), nats per token (2021 code).

    Raises:
        CheckpointError: The checkpoint named by `config` lacks parameters or has unknown ones.
    """

    config_class = PanguAlphaConfig
    base_model_prefix = "network"

    def __init__(self, config: PanguAlphaConfig, network: PanguAlpha | None = None) -> None:
        super().__init__(config)
        self.argmax = ops.argmax  # the base's is mint.argmax, which MindSpore 2.9 lacks on CPU
        seed = None if config.checkpoint_name_or_path else 0  # what is loaded needs no initial values
        self.network = PanguAlpha(config.model_config, seed) if network is None else network
        self.pad_token_id = -1 if config.pad_token_id is None else config.pad_token_id
        self.cross_entropy = self.network.operators.cross_entropy(self.network.config.vocab_size)
        self.cast = ops.Cast()
        if config.checkpoint_name_or_path:
            self.load_checkpoint(config)

    def construct(self, input_ids, labels=None, position_ids=None, attention_mask=None, dropout_rows=None):
        if position_ids is None:
            position_ids = ops.broadcast_to(ops.arange(input_ids.shape[1], dtype=ms.int32), input_ids.shape)
        mask = self.full_mask(input_ids, attention_mask)
        if labels is None:
            return self.network(input_ids, position_ids, mask, dropout_rows)
        hidden = self.network.hidden_states(input_ids, position_ids, mask, dropout_rows)
        table = self.network.word_embedding.table
        counts = self.cast(ops.logical_and(labels >= 0, input_ids != self.pad_token_id), ms.float32)
        nll = self.cross_entropy(hidden, table, ops.maximum(labels, 0).reshape((-1,))).reshape(labels.shape)
        return (nll * counts).sum() / (counts.sum() + 1e-5)

    def full_mask(self, input_ids, attention_mask=None):
        """Returns the mask [B, S, S] for any form of attention_mask; see the inputs of the class."""
        if attention_mask is not None and attention_mask.ndim == 3:
            return attention_mask
        batch, length = input_ids.shape
        causal = ops.ones((length, length), ms.float32).tril()
        if attention_mask is None:
            return ops.broadcast_to(causal, (batch, length, length))
        return causal * self.cast(attention_mask, ms.float32).reshape((batch, 1, length))

    def load_checkpoint(self, config: PanguAlphaConfig) -> None:
        """Loads the file `config.checkpoint_name_or_path`; MindFormers' method ignores missing parameters."""
        file = config.checkpoint_name_or_path
        missing, unexpected = ms.load_param_into_net(self, ms.load_checkpoint(file))
        _refuse_unfit(file, missing, unexpected)

    def save_pretrained_experimental_mode(
        self,
        save_directory: str,
        *args: Any,
        state_dict: Mapping[str, ms.Parameter] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes config.json and the weights; `save_pretrained(folder, save_json=True)` calls this method."""
        # By default MindFormers 1.9 passes plain tensors, on which MindSpore 2.9's save_checkpoint fails.
        if state_dict is None:
            state_dict = {parameter.name: parameter for parameter in self.get_parameters()}
        super().save_pretrained_experimental_mode(save_directory, *args, state_dict=state_dict, **kwargs)

    def chat(self, *_: Any, **__: Any) -> NoReturn:
        """Always refuses: MindFormers' method would run, but return texts that do not answer anything.

        Raises:
            ValueError: On every call.
        """
        raise ValueError(
            "chat: PanGu-alpha is a base model, which continues texts and has no chat template; call "
            "`generate` with a text that the answer continues"
        )

    @classmethod
    def from_pretrained_experimental_mode(
        cls, pretrained_model_name_or_path: str, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> nn.Cell | tuple[nn.Cell, dict[str, Any]]:
        """Loads a folder as MindFormers does, but refuses one that would leave weights random.

        Raises:
            CheckpointError: Parameters are missing, or unknown ones are present.
        """
        model, info = super().from_pretrained_experimental_mode(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        _refuse_unfit(pretrained_model_name_or_path, info["missing_keys"], info["unexpected_keys"])
        return (model, info) if output_loading_info else model


_count_not_finite = ops.MultitypeFuncGraph("count_not_finite")


@_count_not_finite.register("Tensor")
def _count_not_finite_in(gradient):
    return ops.logical_not(ops.isfinite(gradient)).astype(ms.float32).sum()


@MindFormerRegister.register(MindFormerModuleType.WRAPPER)
class PanguAlphaTrainOneStepCell(MFTrainOneStepCell):
    """MindFormers' training step for any device: `runner_wrapper: {type: PanguAlphaTrainOneStepCell}`.

    The base class of MindFormers 1.9 reads Ascend's overflow registers, which fails on a CPU. There this cell
    examines the gradients themselves. An update with a gradient that is not finite is skipped.

    Args:
        network: A cell that returns the loss, such as PanguAlphaForCausalLM.
        **kwargs: Arguments of MFTrainOneStepCell: use_clip_grad, max_grad_norm, scale_sense, ...
    """

    def __init__(self, network: nn.Cell, optimizer: nn.Optimizer, **kwargs: Any) -> None:
        super().__init__(network, optimizer, **kwargs)
        self.looks_at_gradients = ms.get_context("device_target") == "CPU"
        self.count_not_finite = ops.HyperMap()

    def get_overflow_status(self, status, compute_output):
        """Returns a bool scalar, true if a gradient is not finite."""
        if not self.looks_at_gradients:
            return super().get_overflow_status(status, compute_output)
        return ops.addn(self.count_not_finite(_count_not_finite, compute_output)) > 0


@MindFormerRegister.register(MindFormerModuleType.TOKENIZER)
class PanguAlphaTokenizer(PreTrainedTokenizer):
    """A PanguTokenizer in MindFormers' form: the same ids, and no token added at either end.

    A control id's name inside a text is treated as text, as everywhere in this project; MindFormers' own
    tokenizers turn it into the control id.

    Args:
        vocab_file: The vocabulary; in effect required.
        eos_token: Name of the piece that ends a document.
        **kwargs: Arguments of any MindFormers tokenizer.

    Raises:
        ValueError: There is no vocabulary, or it is not one for PanGu-alpha.
    """

    vocab_files_names = {"vocab_file": VOCABULARY}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str | None = None, eos_token: str = "<eod>", **kwargs: Any) -> None:
        if vocab_file is None:
            where = kwargs.get("name_or_path", "the folder")
            raise ValueError(f"{where}: has no {VOCABULARY}; write it with save_for_mindformers")
        # Set before the base's __init__, which asks for the vocabulary.
        self.pangu = PanguTokenizer(vocab_file)
        self._ids = {self.pangu.piece_of(number): number for number in range(self.pangu.vocab_size)}
        roles = {"unk_token": UNKNOWN, "sep_token": "<sep>", "pad_token": "<pad>", "mask_token": "<mask>"}
        others = [name for name in CONTROL_NAMES if name not in (eos_token, *roles.values())]
        defaults = {**roles, "eos_token": eos_token, "additional_special_tokens": others}
        super().__init__(**{**defaults, **kwargs})

    @property
    def vocab_size(self) -> int:
        """Number of pieces, including control pieces."""
        return self.pangu.vocab_size

    def __len__(self) -> int:
        return len(self.get_vocab())

    def get_vocab(self) -> dict[str, int]:
        """Returns the id of every piece, including tokens added by the user."""
        return {**self._ids, **self.added_tokens_encoder}

    def tokenize(self, text: str, *_: Any, **__: Any) -> list[str]:
        """Splits a text into pieces; the base class would first search it for names of control pieces."""
        return [self.pangu.piece_of(number) for number in self.pangu.encode(text)]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Joins pieces to a text."""
        return self.pangu.decode(self.convert_tokens_to_ids(tokens))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Copies the vocabulary into a folder.

        Returns:
            The path of the copy, in a tuple of one.
        """
        name = VOCABULARY if filename_prefix is None else f"{filename_prefix}-{VOCABULARY}"
        target = Path(save_directory) / name
        if target.resolve() != self.pangu.vocab_file.resolve():
            write_bytes(target, self.pangu.vocab_file.read_bytes())
        return (str(target),)

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self.pangu.unk_id)

    def _convert_id_to_token(self, index: int) -> str:
        return self.pangu.piece_of(index)

    def _decode(self, token_ids: int | Iterable[int], skip_special_tokens: bool = False, **_: Any) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return self.pangu.decode(number for number in ids if number not in skipped)


def save_for_mindformers(
    source: str | Path, folder: str | Path, tokenizer: str | Path | None = None
) -> PanguAlphaForCausalLM:
    """Writes what MindFormers' Auto classes read: config.json, weights, tokenizer_config.json, vocab.model.

    Args:
        source: A training run's output folder, or one checkpoint.
        folder: The folder to create; it appears complete or not at all.
        tokenizer: The vocabulary, if it does not lie beside the checkpoint.

    Returns:
        The model that was written.

    Raises:
        ValueError: There is no complete checkpoint or no vocabulary, or the folder exists.
        OSError: The disk does not accept the files.
    """
    folder = Path(folder)
    if os.path.lexists(folder):  # a broken link counts as existing
        raise ValueError(f"{folder}: exists already; give the name of a new folder")
    loaded = load_for_inference(source, tokenizer)
    words = loaded.tokenizer
    shape = dataclasses.asdict(loaded.model.config)
    config = PanguAlphaConfig(**shape, pad_token_id=words.pad_id, eos_token_id=loaded.end_of_document)
    model = PanguAlphaForCausalLM(config, loaded.model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with appearing_folder(folder) as scratch:
        model.save_pretrained(str(scratch), save_json=True)
        ours = PanguAlphaTokenizer(str(words.vocab_file), words.piece_of(loaded.end_of_document))
        ours.save_pretrained(str(scratch), save_json=True)
    return model


def _refuse_misspelt(keys: Mapping[str, Any]) -> None:
    """Refuses unknown keys that resemble a field of ModelConfig, because MindFormers accepts any key."""
    known = {**vars(PretrainedConfig()), **vars(GenerationConfig())}
    problems = []
    for key in keys.keys() - known.keys():
        likely = difflib.get_close_matches(key, _SHAPE, n=1, cutoff=_LIKENESS)
        problems += [f"{key}: unknown key; did you mean {likely[0]!r}?"] if likely else []
    if problems:
        raise ConfigError(sorted(problems))


def _refuse_unfit(where: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    lines = [f"missing: {name}" for name in missing] + [f"extra: {name}" for name in unexpected]
    if lines:
        heading = f"{where}: the weights are not those of this model, which would be left partly random"
        raise CheckpointError("\n  - ".join([f"{heading}:", *lines]))


AutoConfig.register(MODEL_TYPE, PanguAlphaConfig)
AutoModel.register(PanguAlphaConfig, PanguAlphaForCausalLM)
AutoModelForCausalLM.register(PanguAlphaConfig, PanguAlphaForCausalLM)
AutoTokenizer.register(PanguAlphaConfig, slow_tokenizer_class=PanguAlphaTokenizer)
