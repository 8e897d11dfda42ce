"""What a run did: one HTML page with pictures and samples, and the way of one document through all stages."""

from pangu_alpha.corpus.report.explain import explain, explain_text
from pangu_alpha.corpus.report.page import write_report

__all__ = ["explain", "explain_text", "write_report"]
