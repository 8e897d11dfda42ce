"""The stages of a corpus from raw pages to final text, and the driver that runs them on an engine."""

from pangu_alpha.corpus.stages.driver import RESULT, build_corpus, prepared, result_of
from pangu_alpha.corpus.stages.mixture import mix_text, mixtures
from pangu_alpha.corpus.stages.table import STAGES

__all__ = ["RESULT", "STAGES", "build_corpus", "mix_text", "mixtures", "prepared", "result_of"]
