"""Exact and near duplicates: keys, signatures, groups, and the copy that is kept. Knows arrays, no files."""

from pangu_alpha.corpus.duplicates.components import Checksum, connected
from pangu_alpha.corpus.duplicates.keys import exact_keys
from pangu_alpha.corpus.duplicates.minhash import band_keys, estimated_jaccard, signatures
from pangu_alpha.corpus.duplicates.removals import Removals, exact_removals, near_removals
from pangu_alpha.corpus.duplicates.sorted_runs import distinct, large_star, members, small_star, star_edges
from pangu_alpha.corpus.folding import fold

__all__ = [
    "Checksum",
    "Removals",
    "band_keys",
    "connected",
    "distinct",
    "estimated_jaccard",
    "exact_keys",
    "exact_removals",
    "fold",
    "large_star",
    "members",
    "near_removals",
    "signatures",
    "small_star",
    "star_edges",
]
