"""Finds a checkpoint's vocabulary, checks that it is the right one, and prepares a copy of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.checkpoint.foreign.torch.ports import vocabulary_places
from pangu_alpha.checkpoint.moving.copying import TargetFile
from pangu_alpha.checkpoint.naming import VOCABULARY
from pangu_alpha.checkpoint.tensors import Source
from pangu_alpha.files.reading import read_bytes

_MOST = 256 << 20  # bytes; the released vocabulary has half a megabyte


@dataclass(frozen=True)
class FoundVocabulary:
    """The result of the search for a checkpoint's vocabulary.

    Args:
        path: None if there is no vocabulary, or none is the right one.
        content: Bytes of the file.
        said: A sentence for the user about the vocabulary of a copied checkpoint.
    """

    path: Path | None
    content: bytes
    said: str

    def target_files(self) -> list[TargetFile]:
        """Returns the vocabulary as a file of the folder to be made; nothing if there is none."""
        if self.path is None:
            return []
        return [TargetFile(Path(VOCABULARY), len(self.content), ((0, self.content),), ())]


def find_vocabulary(source: Source) -> FoundVocabulary:
    """Looks for the vocabulary in a checkpoint, beside it and in the two folders above, as predict.py does.

    Raises:
        OSError: A file cannot be read.
        ReadError: A file is too large to be a vocabulary.
    """
    expected, others = source.manifest.tokenizer, []
    for path in vocabulary_places(source.path):
        if not path.is_file():
            continue
        content = read_bytes(path, most=_MOST)
        digest = hashlib.sha256(content).hexdigest()
        if expected is None:
            said = f"{VOCABULARY}: copied from {path}; the checkpoint does not say which is its own"
            return FoundVocabulary(path, content, said)
        if digest == expected:
            return FoundVocabulary(path, content, f"{VOCABULARY}: copied from {path}")
        others.append(f"{path} is another one (digest {digest[:12]}, not {expected[:12]})")
    found = "; ".join(others) if others else f"none in {source.path} or the two folders around it"
    advice = "put the right one into the new folder, or give it to predict.py with --vocabulary FILE"
    return FoundVocabulary(None, b"", f"{VOCABULARY}: not copied: {found}; {advice}")
