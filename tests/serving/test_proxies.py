"""nginx and HAProxy in front of two servers, as docs/serving.md sets them up: streams, a rolling restart."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import httpx
import pytest

from tests.serving.running import ROOT, Server, until

PAGE = (ROOT / "docs/serving.md").read_text("utf-8")
BODY = {"model": "pangu", "prompt": "却说", "temperature": 0}
pytestmark = pytest.mark.slow


def block(language):
    """The configuration that the page shows."""
    return re.search(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)[1]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def nginx(folder, port, ports, without=""):
    text = block("nginx").replace("listen 8000", f"listen 127.0.0.1:{port}").replace(without, "")
    for shown, own in zip((8001, 8002), ports, strict=True):
        text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{own}")
    head = f"daemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    head += "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(f"{head}{text}\n}}\n", "utf-8")
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def haproxy(folder, port, ports):
    text = block("haproxy")
    for shown, own in zip((8001, 8002), ports, strict=True):
        text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{own}")
    head = (
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 600s\n    timeout server 600s\n"
    )
    head += f"frontend all\n    bind 127.0.0.1:{port}\n    default_backend pangu\n"
    (folder / "haproxy.cfg").write_text(head + text, "utf-8")
    return ["haproxy", "-f", f"{folder}/haproxy.cfg", "-db"]


@contextmanager
def proxy(words, port):
    """A proxy's process; its address."""
    url = f"http://127.0.0.1:{port}"

    def answers():
        try:
            return httpx.get(url + "/version").status_code == 200
        except httpx.HTTPError:
            return False

    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        until(answers)
        yield url
    finally:
        process.terminate()
        process.wait()


class Fleet:
    """Two servers with a proxy in front.

    Args:
        make: Writes a proxy's configuration, and returns the words that start it.
        start: start(*options) starts a server and does not wait for it.
    """

    def __init__(self, make, start):
        self.make, self._start = make, start
        self.servers = [start(), start()]
        for server in self.servers:
            server.until_ready()
        self.ports = [int(server.url.rpartition(":")[2]) for server in self.servers]
        self.url = ""

    def taken(self, number):
        """How many requests the server that now stands there has answered."""
        return sum("completion_tokens" in line for line in self.servers[number].lines())

    def restart(self, number):
        """What docs/serving.md does with one server after the other; the exit code of the old one."""
        old = self.servers[number]
        old.process.send_signal(signal.SIGTERM)
        code = old.process.wait(60)
        self.servers[number] = self._start("--port", self.ports[number])
        self.servers[number].until_ready()
        return code


@pytest.fixture(scope="module", params=[nginx, haproxy], ids=["nginx", "haproxy"])
def fleet(request, vocabulary, tmp_path_factory):
    make = request.param
    if shutil.which(make.__name__) is None:
        pytest.skip(f"needs {make.__name__}, a package of Debian")
    folder, port = tmp_path_factory.mktemp(make.__name__), free_port()
    options = ("--vocabulary", vocabulary, "--delay", 0.05, "--connections-per-peer", 256)
    with ExitStack() as stack:
        found = Fleet(
            make, lambda *more: stack.enter_context(closing(Server(folder, *options, *more, wait=False)))
        )
        found.url = stack.enter_context(proxy(make(folder, port, found.ports), port))
        yield found


def seconds_between_chunks(url):
    """Seconds from the first of 20 chunks to the last one; the server takes a second for them."""
    arrived = []
    body = {**BODY, "max_tokens": 20, "stream": True}
    with httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                arrived.append(time.monotonic())
    assert len(arrived) == 20
    return arrived[-1] - arrived[0]


def test_chunks_arrive_one_by_one(fleet):
    assert seconds_between_chunks(fleet.url) > 0.5


def test_a_proxy_that_buffers_is_told_not_to(fleet, tmp_path):
    """An nginx whose operator did not think of streams."""
    if fleet.make is not nginx:
        pytest.skip("HAProxy buffers no answers")
    port = free_port()
    with proxy(nginx(tmp_path, port, fleet.ports, without="proxy_buffering off;"), port) as url:
        assert "proxy_buffering" not in (tmp_path / "nginx.conf").read_text("utf-8")
        assert seconds_between_chunks(url) > 0.5


def test_a_slot_is_free_when_the_client_left(fleet):
    body = {**BODY, "max_tokens": 200, "stream": True}
    with httpx.stream("POST", fleet.url + "/v1/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    for server in fleet.servers:
        until(lambda server=server: httpx.get(server.url + "/health/ready").json()["running"] == 0)


def test_a_rolling_restart_loses_nothing(fleet):
    """Both servers are replaced while four clients go on asking."""
    replaced = threading.Event()
    found = []

    def ask(client):
        while not replaced.is_set():
            body = {**BODY, "max_tokens": 10, "stream": bool(client % 2)}
            answer = httpx.post(fleet.url + "/v1/completions", json=body, timeout=60)
            found.append((answer.status_code, "[DONE]" in answer.text or not client % 2))

    with ThreadPoolExecutor(4) as pool:
        asks = [pool.submit(ask, client) for client in range(4)]
        try:
            until(lambda: len(found) > 4)
            codes = [fleet.restart(0)]
            until(lambda: fleet.taken(0))  # the proxy has found the new server
            codes.append(fleet.restart(1))
        finally:
            replaced.set()
        for each in asks:
            each.result()
    assert codes == [0, 0] and {*found} == {(200, True)}
