"""Whatever the front accepts, the engine accepts: a request that it refused would be a fault of ours."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pangu_alpha.config.option import option_of
from pangu_alpha.inference.engine.requests import problems
from pangu_alpha.serving.engine.protocol import Job, request_of
from pangu_alpha.serving.wire.catalog import Catalog
from pangu_alpha.serving.wire.fields import CompletionFields, SamplingFields
from pangu_alpha.serving.wire.requests import read_generation

LEAST_ABOVE_0 = 5e-324


def bounds():
    """Every number of a request at its bounds, and as near to them as floats go."""
    for field in dataclasses.fields(SamplingFields):
        declared = option_of(field)
        if declared.at_least is None:
            continue
        values = [declared.at_least, declared.at_most if declared.below is None else declared.below - 1]
        if field.type == "float":
            values += [LEAST_ABOVE_0, 1 - 2**-53]
        yield from ((field.name, value) for value in values)


def engines_request(facts, **body):
    """What the engine's process makes of a body."""
    body = {"model": "pangu", "prompt": "却说", "max_tokens": 2, **body}
    generation = read_generation(CompletionFields, body, Catalog("pangu", {}, 0), facts)
    job = Job(
        prompt=generation.prompts[0].ids,
        draws=generation.draws,
        seed=generation.seed,
        max_tokens=generation.max_tokens,
        samples=generation.samples,
        logit_bias=generation.logit_bias,
        logprobs=None if generation.logprobs is None else generation.logprobs * facts.twins,
    )
    return request_of(json.loads(json.dumps(job.message(1), allow_nan=False)), exact=True)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in bounds() if name != "n"])
@pytest.mark.parametrize("temperature", [0, LEAST_ABOVE_0, 2])
def test_every_bound_of_a_request_is_within_those_of_the_engine(facts, name, value, temperature):
    request = engines_request(facts, **{"temperature": temperature, "logprobs": 20, name: value})
    assert not [*problems(request, facts.context, np.zeros(facts.vocab_size, bool))]


def test_what_requests_mean(facts):
    whole = engines_request(facts, top_k=-1, min_p=0.0, top_p=1.0).sampling
    assert (whole.top_k, whole.greedy) == (0, False)
    likeliest = engines_request(facts, top_p=0, top_k=7).sampling
    assert likeliest.greedy
    biased = engines_request(facts, logit_bias={"12": -100, "13": 1.5}, n=facts.slots, seed=2**63 - 1)
    assert biased.logit_bias == {12: -100, 13: 1.5} and biased.samples == facts.slots
    assert biased.sampling.seed == 2**63 - 1
