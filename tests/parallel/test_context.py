"""How a process comes to its chip, and at which level MindSpore compiles for it."""

from __future__ import annotations

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.parallel import context

MODEL = ModelConfig(64, 8, 2, 2, seq_length=16)


@pytest.fixture
def found(monkeypatch):
    """Makes MindSpore find a chip."""

    def find(soc_version):
        monkeypatch.setattr("pangu_alpha.model.chip.soc_version", lambda: soc_version)
        monkeypatch.setattr(context, "soc_version", lambda: soc_version)

    return find


def test_a_chip_that_mindspore_knows_need_not_be_named(found):
    found("ascend910_93")
    assert context.use_chip("auto", MODEL) == context.use_chip("910C", MODEL) == "910C"


def test_another_chip_than_the_one_that_is_there_is_refused(found):
    found("ascend910")
    with pytest.raises(ValueError, match="run.chip: 910B, but MindSpore finds a 910A; leave run.chip out"):
        context.use_chip("910B", MODEL)


def test_an_unknown_chip_is_refused_until_it_is_named(found):
    found("ascend950")
    with pytest.raises(
        ValueError, match="MindSpore calls the chip 'ascend950', .*run.chip=910A or 910B or 910C"
    ):
        context.use_chip("auto", MODEL)
    assert context.use_chip("910B", MODEL) == "910B"


def test_bfloat16_is_refused_on_a_910a(found):
    found("ascend910")
    with pytest.raises(ValueError, match="bfloat16, but a 910A .* take float16$"):
        context.use_chip("auto", ModelConfig(64, 8, 2, 2, seq_length=16, compute_dtype="bfloat16"))


def test_the_saturation_mode_is_refused_where_inf_and_nan_tell(found, monkeypatch):
    monkeypatch.setenv("MS_ASCEND_CHECK_OVERFLOW_MODE", "SATURATION_MODE")
    found("ascend910b")
    with pytest.raises(ValueError, match="SATURATION_MODE hides overflow on a 910B.*; unset it"):
        context.use_chip("auto", MODEL)
    found("ascend910")
    assert context.use_chip("auto", MODEL) == "910A"


def test_graphs_for_ascend_are_compiled_kernel_by_kernel(monkeypatch):
    """Without a word MindSpore chooses, and O2 is another compiler's graph than the one that is proven."""
    calls = []
    monkeypatch.setattr(context.ms, "set_context", lambda **settings: calls.append(settings))
    monkeypatch.setattr(context.ms, "set_device", lambda device: None)
    monkeypatch.setattr(context.ms, "set_recursion_limit", lambda limit: None)
    monkeypatch.setattr(context.ms.device_context.ascend, "is_available", lambda: True)
    for start in (context.simulate_ascend, lambda: context.use_device("Ascend")):
        calls.clear()
        start()
        assert {"jit_config": {"jit_level": "O0"}} in calls
    calls.clear()
    context.use_device("CPU")
    assert all("jit_config" not in each for each in calls)
