"""A web set with known answers: real Chinese pages from Debian packages, and planted ones of every kind.

Knows how pages are stored and what must become of them; running the corpus is the caller's.
"""

from pangu_alpha.corpus.demo.answers import Confusion, confusion, fates
from pangu_alpha.corpus.demo.planted import KEPT, PERSONAL, Planted, planted
from pangu_alpha.corpus.demo.site import write_demo

__all__ = ["KEPT", "PERSONAL", "Confusion", "Planted", "confusion", "fates", "planted", "write_demo"]
