from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from pangu_alpha.corpus.demo.packages import Package, fetch_package, package_pages, packages


def debian(files):
    """A Debian package with these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())]
    out = b"!<arch>\n"
    for name, content in members:
        out += b"%-16b%-12d%-6d%-6d%-8b%-10d`\n" % (name.encode(), 0, 0, 0, b"100644", len(content))
        out += content + b"\n" * (len(content) % 2)
    return out


FILES = {
    "usr/share/x/b.html": b"<p>b",
    "usr/share/x/a/a.html": b"<p>a",
    "usr/share/x/c.png": b"",
    "e.html": b"",
}
CONTENT = debian(FILES)
PACKAGE = Package("x", "pool/x_1_all.deb", hashlib.sha256(CONTENT).hexdigest(), "usr/share/x", "none")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror on this machine; yields its folder."""
    folder = tmp_path / "mirror"
    (folder / "pool").mkdir(parents=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PANGU_DEBIAN_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()


def test_a_package_is_fetched_once_and_its_pages_come_in_order(mirror, tmp_path):
    (mirror / "pool" / "x_1_all.deb").write_bytes(CONTENT)
    path = fetch_package(PACKAGE, tmp_path / "cache")
    (mirror / "pool" / "x_1_all.deb").unlink()
    assert fetch_package(PACKAGE, tmp_path / "cache") == path
    assert list(package_pages(PACKAGE, path)) == [("a/a.html", b"<p>a"), ("b.html", b"<p>b")]


def test_another_file_is_refused_and_not_kept(mirror, tmp_path):
    (mirror / "pool" / "x_1_all.deb").write_bytes(CONTENT[:-2])
    with pytest.raises(ValueError, match="the download is damaged or the package was changed"):
        fetch_package(PACKAGE, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_without_a_network_the_error_names_the_file_to_put(mirror, tmp_path):
    with pytest.raises(OSError, match=r"put it as .*x_1_all\.deb \(sha256"):
        fetch_package(PACKAGE, tmp_path / "cache")


def test_what_is_no_package_is_refused(tmp_path):
    path = tmp_path / "x.deb"
    path.write_bytes(b"!<arch>\nodd")
    with pytest.raises(ValueError, match="no whole Debian package"):
        list(package_pages(PACKAGE, path))


def test_the_table_is_complete():
    assert len(packages()) >= 5
    assert all(len(each.sha256) == 64 and each.licence for each in packages().values())
