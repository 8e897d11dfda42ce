"""Takes the answer out of a generated text."""

from __future__ import annotations

from pangu_alpha.evaluation.running.network import Encoder
from pangu_alpha.evaluation.tasks.task import Template


def extract(template: Template, text: str, reference: str, encoder: Encoder) -> str:
    """Returns the answer in a generated text; see Template.extract.

    Args:
        text: The continuation up to its stop text.
        reference: The first right answer; used only by the rule that knows its length.
    """
    text = text.strip()
    if template.extract == "gold_length":
        return encoder.decode(encoder.encode(text)[: len(encoder.encode(reference))])
    return text
