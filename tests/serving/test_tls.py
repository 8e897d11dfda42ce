"""A server with a certificate: who gets through the handshake, and who does not."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time

import httpx
import pytest

from tests.serving.running import until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, for a certificate")


@pytest.fixture
def certificate(tmp_path):
    """Files of a certificate for 127.0.0.1, which signs itself, and of its key."""
    paths = [str(tmp_path / name) for name in ("certificate.pem", "key.pem")]
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", *words, "-out", paths[0], "-keyout", paths[1]]
    subprocess.run(made, check=True, capture_output=True)
    return paths


def handshakes(client):
    """(started, completed)"""
    lines = client.get("/metrics").text.splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith("pangu:tls_handshakes_total"))
    return tuple(
        int(float(found[f'pangu:tls_handshakes_total{{state="{state}"}}']))
        for state in ("started", "completed")
    )


def test_handshakes_are_counted_and_have_a_deadline(start, certificate):
    options = ("--certificate", certificate[0], "--certificate-key", certificate[1], "--header-timeout", 1)
    server = start(*options)
    assert server.url.startswith("https://127.0.0.1:")
    trusted = ssl.create_default_context(cafile=certificate[0])
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    with httpx.Client(base_url=server.url, verify=trusted) as client:
        body = {"model": "pangu", "prompt": "却说", "max_tokens": 2, "temperature": 0}
        assert client.post("/v1/completions", json=body).status_code == 200
        assert handshakes(client) == (1, 1)
        with socket.create_connection(address, 10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP" not in plain.recv(1000)
        assert handshakes(client) == (2, 1)
        with socket.create_connection(address, 10) as silent:
            began = time.monotonic()
            assert silent.recv(1000) == b""  # the server ends what does not begin
            assert 0.5 < time.monotonic() - began < 8
        until(lambda: handshakes(client) == (3, 1))
        assert httpx.get(server.url + "/health", verify=trusted).status_code == 200
        assert handshakes(client) == (4, 2)
