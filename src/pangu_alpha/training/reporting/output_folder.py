"""Writes a run's configuration, and files such as its vocabulary, into its output folder before training.

A user's own files are kept: a file written by hand is renamed, and the target of a link is not touched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.files.paths import free_name
from pangu_alpha.files.reading import ReadError, read_text
from pangu_alpha.files.writing import write_bytes
from pangu_alpha.files.yaml_text import parse_yaml, yaml_text

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"


def prepare_folder(folder: Path, config: TrainConfig, files: Mapping[str, Path]) -> None:
    """Makes a run's folder with its config.yaml and copies of the files that it needs later.

    Args:
        files: Files to copy, by the names of the copies.

    Raises:
        OSError: Something cannot be written, or a file cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        _put(folder / name, file.read_bytes())
    path = folder / CONFIG
    if path.is_file() and not path.is_symlink() and not _is_written_by_a_run(path):
        own = free_name(path.with_name(f"{CONFIG}.own"))
        path.rename(own)
        logger.warning("%s: written by hand; it is %s now, the run's own is put there", path, own.name)
    _put(path, yaml_text(to_mapping(config)).encode())


def _put(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:  # it may be the very file that was read
        return
    if path.is_symlink():
        path.unlink()
    write_bytes(path, content)


def _is_written_by_a_run(config: Path) -> bool:
    """Whether it is exactly as `yaml_text` writes it, hence without comments: replacing it loses nothing."""
    try:
        text = read_text(config)
    except ReadError:
        return False
    try:
        return yaml_text(parse_yaml(text, config)) == text
    except ReadError:
        return r"\uDC" in text  # in a path whose bytes are not UTF-8, which makes the YAML unreadable
