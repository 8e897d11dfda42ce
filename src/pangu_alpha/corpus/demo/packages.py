"""Fetches the Debian packages of the demo, checks their sha256, and reads the HTML pages in them.

Packages are only unpacked: no apt is needed, and nothing is installed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.config.schema import parse_yaml
from pangu_alpha.text.corpora import default_directory

MIRROR = "http://deb.debian.org/debian"  # PANGU_DEBIAN_MIRROR names another one
_AR = b"!<arch>\n"
_AR_HEADER = 60
_TIMEOUT = 60  # seconds without an answer
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Package:
    """One entry of packages.yaml.

    Args:
        file: Path below the mirror.
        pages: Folder inside the package with HTML pages.
    """

    name: str
    file: str
    sha256: str
    pages: str
    licence: str


@functools.cache
def packages() -> dict[str, Package]:
    """The table as a mapping from name to entry, in the order of the file."""
    text = importlib.resources.files(__package__).joinpath("packages.yaml").read_text("utf-8")
    return {name: Package(name=name, **entry) for name, entry in parse_yaml(text, "packages.yaml").items()}


def fetch_package(package: Package, directory: Path | None = None) -> Path:
    """Returns the file of a package, and downloads it first if it is not there.

    Args:
        directory: Where files are looked up and stored; None is that of `fetch.py`.

    Raises:
        ValueError: The file has another sha256.
        OSError: It cannot be downloaded; the message names the file to put in place by hand.
    """
    directory = directory or default_directory()
    path = directory / package.file.rsplit("/", 1)[1]
    content = path.read_bytes() if path.is_file() else _download(package, path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.sha256:
        raise ValueError(
            f"{path}: has sha256 {digest}, expected {package.sha256}; the download is damaged or the package "
            "was changed: delete the file, and put the version of the table in its place"
        )
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(content)
        draft.replace(path)
    return path


def _download(package: Package, path: Path) -> bytes:
    address = f"{os.environ.get('PANGU_DEBIAN_MIRROR', MIRROR).rstrip('/')}/{package.file}"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read(_MOST_BYTES)
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise OSError(
            f"could not download {address} ({error}). Without a network, take the package from elsewhere and "
            f"put it as {path} (sha256 {package.sha256}); without any package, --small makes a small demo"
        ) from error
    return content


def package_pages(package: Package, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the pages of a fetched package, as paths below its folder of pages and bytes, in their order.

    Raises:
        ValueError: The file is no Debian package.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(_data(path.read_bytes()))) as archive:
            pages = {}
            for member in archive:
                name = member.name.removeprefix("./")
                inside = name.startswith(f"{package.pages}/") and name.endswith((".html", ".htm"))
                stream = archive.extractfile(member) if inside and member.isfile() else None
                if stream is not None:
                    pages[name.removeprefix(f"{package.pages}/")] = stream.read()
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: is no whole Debian package ({error})") from error
    yield from sorted(pages.items())


def _data(content: bytes) -> bytes:
    """The member data.tar of an ar archive."""
    place = len(_AR)
    while content.startswith(_AR) and place + _AR_HEADER <= len(content):
        header = content[place : place + _AR_HEADER]
        name, size = header[:16].decode("ascii", "replace").strip(" /"), header[48:58].strip()
        if not size.isdigit():
            break
        place += _AR_HEADER
        if name.startswith("data.tar"):
            return content[place : place + int(size)]
        place += int(size) + int(size) % 2
    raise tarfile.TarError("there is no member data.tar")
