"""The real network of the engine's process; importing this module loads MindSpore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.inference.caches import cache_bytes
from pangu_alpha.inference.decoder import Decoder
from pangu_alpha.inference.engine.row_decoder import RowDecoder
from pangu_alpha.inference.load import DescribedModel, describe_for_inference, load_for_inference
from pangu_alpha.parallel.context import use_device
from pangu_alpha.processes.host_memory import available_bytes
from pangu_alpha.serving.engine.memory import fitting_context, itemsize, refuse_what_does_not_fit
from pangu_alpha.serving.engine.process import Described
from pangu_alpha.serving.engine.settings import EngineSettings


def describe(settings: EngineSettings) -> Described:
    """Opens the checkpoint of some settings.

    Raises:
        ValueError: See describe_for_inference; or the cache does not fit into memory.
    """
    device = use_device(settings.device)
    strategy = None if settings.strategy is None else Path(settings.strategy)
    options = OpenOptions(settings.model, strategy, settings.norm_order)
    found = describe_for_inference(settings.checkpoint, settings.tokenizer, settings.end_of_document, options)
    context = fitting_context(settings.context, found.config, device)
    rows, slots = settings.slots + settings.pinned, context + 1  # the spill slot of inference.decoder
    size = cache_bytes(found.config, rows, slots, itemsize(found.config, device))
    if device == "CPU":
        refuse_what_does_not_fit(found.config, size, available_bytes(), settings)
    absent = range(found.tokenizer.vocab_size, found.config.vocab_size)
    banned = {*found.tokenizer.control_ids, found.tokenizer.unk_id, *absent} - {found.end_of_document}
    return Described(
        vocabulary=str(found.tokenizer.vocab_file.absolute()),
        vocab_size=found.config.vocab_size,
        end_of_document=found.end_of_document,
        context=context,
        name=str(found.source.path),
        lines=_lines(found, device, size, context, settings),
        banned=banned,
        load=lambda: _load(settings, options, context),
    )


def _load(
    settings: EngineSettings, options: OpenOptions, context: int
) -> tuple[RowDecoder, Mapping[str, float]]:
    loaded = load_for_inference(settings.checkpoint, settings.tokenizer, settings.end_of_document, options)
    decoder = Decoder(loaded.model, loaded.end_of_document, settings.slots, context, settings.pinned)
    return decoder, decoder.warm_up()


def _lines(
    found: DescribedModel, device: str, size: int, context: int, settings: EngineSettings
) -> Sequence[str]:
    return [
        f"{found.source.path}: {found.source.form}, step {found.source.manifest.step}, on {device}",
        f"{settings.slots} slots and {settings.pinned} pinned rows of {context} tokens: {size / 1e6:,.0f} MB",
    ]
