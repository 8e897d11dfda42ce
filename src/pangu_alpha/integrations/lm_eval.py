"""PanGu-alpha as a model of lm-evaluation-harness 0.4, and the harness's command line with it.

    python -m pangu_alpha.integrations.lm_eval --model pangu_alpha --model_args checkpoint=DIR --tasks TASK ..

Importing this module registers the model; nothing is downloaded. The harness is the extra [evaluation]. It
moves white space from a context to its continuation, and finds the border by the number of the context's ids;
here the longest common beginning of the ids decides instead (see evaluation.encode_pair).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

# Set before the harness is imported: it must ask no hub for anything, nor fork while MindSpore has threads.
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DISABLE_MULTIPROC", "1")

import lm_eval.models  # noqa: F401  or the table of its own models stays empty
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.evaluation import Scorer
from pangu_alpha.evaluation.encode_pair import EncodedPair, PairEncoder
from pangu_alpha.files.shown import quoted
from pangu_alpha.inference.nats import Predicted
from pangu_alpha.inference.packing import common_length
from pangu_alpha.integrations.lm_eval_tasks import FOLDER
from pangu_alpha.parallel.context import use_device
from pangu_alpha.text.growing import as_generated

logger = logging.getLogger(__name__)

DEFAULT_BATCH = 8  # where the harness says "auto"
_DEVICES = {"cpu": "CPU", "npu": "Ascend"}
_FINGERPRINT = "pangu_alpha fingerprint"  # a key in the harness's file of answers


@register_model("pangu_alpha")
class PanguAlphaLM(TemplateLM):
    """A trained network for the harness.

    Args:
        checkpoint: A run's output folder or a checkpoint of any form.
        vocabulary: The vocabulary; None takes the one beside the checkpoint.
        batch_size: Number of texts computed together, or "auto".
        device: "cpu" or "npu"; anything else, as the harness's own "cuda:0", is the one there is.
        max_batch_size: Not used.

    Raises:
        ValueError: Checkpoint or vocabulary are missing, damaged, or do not fit each other.
    """

    def __init__(
        self,
        checkpoint: str,
        vocabulary: str | None = None,
        batch_size: int | str = DEFAULT_BATCH,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        use_device(_DEVICES.get(str(device).split(":")[0], "auto"))
        size = DEFAULT_BATCH if str(batch_size).startswith("auto") else int(batch_size)
        self.scorer = Scorer(str(checkpoint), size, vocabulary)
        self.encoder = PairEncoder(self.scorer.tokenizer, self.scorer.end_of_document)
        self.cut = 0  # number of contexts whose beginning was cut off

    @property
    def eot_token_id(self) -> int:
        """Id between documents, on which a text without context is conditioned."""
        return self.scorer.end_of_document

    @property
    def max_length(self) -> int:
        """Number of ids that are read at once."""
        return self.scorer.context

    @property
    def tokenizer_name(self) -> str:
        """The vocabulary, for the harness's file of prompts."""
        return f"pangu_alpha-{self.scorer.tokenizer.digest}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text; there are no special ones to add."""
        return self.scorer.tokenizer.encode(string)

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Takes the harness's file of answers, whose keys do not depend on the model.

        Raises:
            ValueError: The file holds answers of another checkpoint.
        """
        if cache_hook.dbdict is not None:
            known = cache_hook.dbdict.get(_FINGERPRINT, self.scorer.fingerprint)
            if known != self.scorer.fingerprint:
                raise ValueError(
                    "use_cache: the file holds answers of another checkpoint or vocabulary; name another file"
                )
            cache_hook.dbdict[_FINGERPRINT] = known
        super().set_cache_hook(cache_hook)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Sum of log p of each continuation, and whether greedy generation would give it.

        The beginning of a context that is too long is cut off, as by the harness's other models; how many is
        logged.

        Raises:
            ValueError: Lists all continuations that alone exceed the context.
        """
        texts = [request.args for request in requests]
        moved = self.encoder.moved
        pairs = self._shortened(self.encoder(texts))
        answers = [_answer(each) for each in self.scorer.predict(pairs)]
        for text, answer in zip(texts, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", text, answer)
        logger.info(
            "%d requests; in %d the context's ids are not the beginning of the whole text's, so more than "
            "the continuation is scored; %d contexts were cut at their beginning",
            len(texts),
            self.encoder.moved - moved,
            self.cut,
        )
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        pairs = [(context, [*context, *continuation]) for _, context, continuation in requests]
        return [_answer(each) for each in self.scorer.predict(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Sum of log p of all ids of each text, in windows of the context's length."""
        pairs, owners = [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            for context, continuation in map(make_disjoint_window, windows):
                pairs.append((context, [*context, *continuation]))
                owners.append(number)
        sums = [0.0] * len(requests)
        for owner, each in zip(owners, self.scorer.predict(pairs), strict=True):
            sums[owner] += _answer(each)[0]
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The continuation of each context up to its first stop text."""
        groups: dict[tuple[int, tuple[str, ...], SamplingConfig], list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(self._how(request.args[1]), []).append(number)
        answers = [""] * len(requests)
        for (limit, stop, sampling), numbers in groups.items():
            texts = self.scorer.generate([requests[n].args[0] for n in numbers], limit, stop, sampling)
            for number, text in zip(numbers, texts, strict=True):
                answers[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return answers

    def _how(self, given: dict[str, Any]) -> tuple[int, tuple[str, ...], SamplingConfig]:
        """Number of new tokens, stop texts, and how to choose tokens."""
        how = normalize_gen_kwargs(given)
        stop = tuple(text for text in how["until"] if self._possible(text))
        if not how["do_sample"]:
            return how["max_gen_toks"], stop, SamplingConfig(greedy=True)
        chosen = {key: how[key] for key in ("temperature", "top_k", "top_p") if key in how}
        return how["max_gen_toks"], stop, SamplingConfig(**{"top_p": 1.0, **chosen})

    def _possible(self, stop: str) -> bool:
        """Whether a stop text can be generated; one that cannot is never met."""
        try:
            as_generated(self.scorer.tokenizer, stop)
        except ValueError:
            logger.warning("until: %s cannot be generated by this vocabulary and is left out", quoted(stop))
            return False
        return True

    def _shortened(self, pairs: Sequence[EncodedPair]) -> list[EncodedPair]:
        most, result, problems = self.max_length + 1, [], []
        for number, (prefix, whole) in enumerate(pairs):
            if len(whole) > most:
                counted = len(whole) - common_length(prefix, whole)
                if counted >= most:
                    problems.append(
                        f"request {number}: its continuation has {counted} ids, but at most {most - 1} can "
                        "be scored; shorten it"
                    )
                self.cut += 1
                whole = whole[-most:]
                prefix = whole[: most - counted]
            result.append(EncodedPair(prefix, whole))
        if problems:
            raise ValueError("\n".join(problems))
        return result


def _answer(each: Predicted) -> tuple[float, bool]:
    """The harness's answer: log p in nats, not above 0, and whether all ids are the likeliest."""
    return -float(each.nats.sum(dtype="float64")), bool(each.likeliest.all())


def main(arguments: Sequence[str]) -> None:
    """Runs the harness's command line, with our tasks unless others are named."""
    words = list(arguments)
    runs = words[:1] not in (["ls"], ["validate"])
    if runs and words and not any(word.split("=")[0] == "--include_path" for word in words):
        words += ["--include_path", str(FOLDER)]
    sys.argv = ["lm_eval", *words]
    cli_evaluate()


if __name__ == "__main__":
    main(sys.argv[1:])
