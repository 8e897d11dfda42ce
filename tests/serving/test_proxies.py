"""nginx and HAProxy in front of two servers, as docs/serving.md sets them up: streams, a rolling restart."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serving.running import ROOT, until

PAGE = (ROOT / "docs/serving.md").read_text("utf-8")
BODY = {"model": "pangu", "prompt": "却说", "temperature": 0}
pytestmark = pytest.mark.long  # minutes in all


def block(language):
    """The configuration that the page shows."""
    return re.search(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)[1]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def nginx(folder, port, ports):
    text = block("nginx").replace("listen 8000", f"listen 127.0.0.1:{port}")
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


@pytest.fixture(params=[nginx, haproxy], ids=["nginx", "haproxy"])
def proxied(request, start, tmp_path):
    """proxied(*options): two servers with a proxy in front, and the proxy's address."""
    make = request.param
    if shutil.which(make.__name__) is None:
        pytest.skip(f"needs {make.__name__}, a package of Debian")
    processes = []

    def run(*options):
        servers = [start("--connections-per-peer", 256, *options) for _ in range(2)]
        ports = [int(server.url.rpartition(":")[2]) for server in servers]
        port = free_port()
        processes.append(subprocess.Popen(make(tmp_path, port, ports), stderr=subprocess.DEVNULL))
        url = f"http://127.0.0.1:{port}"

        def answers():
            try:
                return httpx.get(url + "/version").status_code == 200
            except httpx.HTTPError:
                return False

        until(answers)
        return servers, url

    yield run
    for process in processes:
        process.terminate()
        process.wait()


def test_chunks_arrive_one_by_one_and_a_slot_is_free_when_the_client_left(proxied):
    servers, url = proxied("--delay", 0.1)
    arrived = []
    body = {**BODY, "max_tokens": 10, "stream": True}
    with httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                arrived.append(time.monotonic())
    assert len(arrived) == 10 and arrived[-1] - arrived[0] > 0.5
    body["max_tokens"] = 200
    with httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    for server in servers:
        until(lambda server=server: httpx.get(server.url + "/health/ready").json()["running"] == 0)


def test_a_rolling_restart_loses_nothing(proxied, start):
    servers, url = proxied("--delay", 0.02)
    statuses = []

    def ask(number):
        body = {**BODY, "max_tokens": 10, "stream": bool(number % 2)}
        answer = httpx.post(url + "/v1/completions", json=body, timeout=60)
        return answer.status_code, "[DONE]" in answer.text or not number % 2

    with ThreadPoolExecutor(4) as pool:
        asks = [pool.submit(ask, number) for number in range(40)]
        until(lambda: sum(each.done() for each in asks) > 4)
        servers[0].process.send_signal(signal.SIGTERM)
        statuses = [each.result() for each in asks]
    assert statuses == [(200, True)] * 40
    assert servers[0].process.wait(60) == 0
