"""The bounds of a connection, in the words of HTTP alone: a refusal arrives, whatever is still being sent."""

from __future__ import annotations

import json
import socket
from contextlib import closing

import httpx
import pytest

from tests.serving.running import Server, until

BODY = {"model": "pangu", "prompt": "却说", "temperature": 0}
HOST = "Host: 127.0.0.1"
VERSION = f"GET /version HTTP/1.1\r\n{HOST}\r\n\r\n".encode()
NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01",  # TLS
    b"GET / HTTP/9.9\r\n\r\n",
    b"CONNECT a.example:1 HTTP/1.1\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
)
SECONDS = 60  # after which a test gives up; nothing is measured by it


@pytest.fixture(scope="module")
def strict(tmp_path_factory, vocabulary):
    """A server with little patience, for a whole file."""
    options = ("--header-timeout", 1, "--body-timeout", 1, "--send-timeout", 1, "--delay", 0.01)
    folder = tmp_path_factory.mktemp("strict")
    with closing(Server(folder, "--vocabulary", vocabulary, *options, "--connections-per-peer", 64)) as found:
        yield found


def connect(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), SECONDS)


def rest(connection) -> bytes:
    """All that arrives until the server closes."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def answer(connection) -> tuple[int, dict[str, str], bytes]:
    """One answer with a content-length; the connection stays open."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    content = b""
    while len(content) < int(headers.get("content-length", 0)):
        content += connection.recv(int(headers["content-length"]) - len(content))
    return int(first.split()[1]), headers, content


def post(path, content, *headers, kind="application/json", size=None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", HOST, f"Content-Type: {kind}", *headers]
    if size != "chunked":
        lines.append(f"Content-Length: {len(content) if size is None else size}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def send_all(connection, content) -> None:
    """Sends as much as the server takes, without reading, as many clients do."""
    try:
        connection.sendall(content)
    except (BrokenPipeError, ConnectionResetError):
        pytest.fail("the server has reset the connection, and its answer with it")


def code_of(content) -> str:
    return json.loads(content)["error"]["code"]


def test_headers_have_a_bound_of_their_own(strict):
    """64 KiB; a body that arrives in the same piece does not count."""
    body = json.dumps({**BODY, "prompt": "说" * 60000}).encode()
    with connect(strict) as connection:
        connection.sendall(post("/v1/completions", body, "X-Long: " + "a" * 60000))
        assert code_of(answer(connection)[2]) == "context_length_exceeded"
        connection.sendall(post("/v1/completions", b"", "X-Long: " + "a" * 66000))
        status, headers, content = answer(connection)
        assert (status, code_of(content)) == (431, "headers_too_large")
        assert headers["connection"] == "close" and len(headers["x-request-id"]) == 32
        assert rest(connection) == b""


@pytest.mark.parametrize(
    "start", ["GET / HTTP/1.1\r\nX-Long: ", "GET /", "GET / HTTP/1.1\r\n" + "a: b\r\n" * 4]
)
def test_headers_without_an_end_are_refused_and_the_refusal_arrives(strict, start):
    with connect(strict) as connection:
        send_all(connection, start.encode() + (b"a:b\r\n" if start.endswith("\r\n") else b"a") * (1 << 20))
        assert b"HTTP/1.1 431 Request Header Fields Too Large" in rest(connection)


def test_the_number_of_headers_has_a_bound_too(strict):
    """A thousand short ones would fit into the bytes that are allowed."""
    many = [f"X-{number}: 1" for number in range(120)]
    with connect(strict) as connection:
        connection.sendall(post("/v1/completions", b"{}", *many))
        assert answer(connection)[0] == 400  # only the body is wrong
        connection.sendall(post("/v1/completions", b"{}", *many, *many))
        status, headers, content = answer(connection)
        assert (status, code_of(content)) == (431, "headers_too_many")
        assert headers["connection"] == "close"
        assert rest(connection) == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_bound_is_refused_and_the_refusal_arrives(strict, chunked):
    piece = b" " * (1 << 23)
    content = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    more = ["Transfer-Encoding: chunked"] if chunked else []
    with connect(strict) as connection:
        send_all(connection, post("/v1/completions", content, *more, size="chunked" if chunked else None))
        status, headers, body = answer(connection)
        assert (status, code_of(body), headers["connection"]) == (413, "body_too_large", "close")
        assert rest(connection) == b""


def test_the_framing_of_a_body_has_a_bound_too(strict):
    """A chunk of one byte may not come with a megabyte of words that mean nothing."""
    chunk = b"1;" + b"x" * (1 << 16) + b"\r\n \r\n"
    with connect(strict) as connection:
        send_all(connection, post("/v1/completions", b"", "Transfer-Encoding: chunked", size="chunked"))
        send_all(connection, chunk * 200)
        status, _, content = answer(connection)
        assert (status, code_of(content)) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [("/nothing", "application/json", 404), ("/version", "application/json", 405),
     ("/v1/completions", "text/plain", 415)],
)  # fmt: skip
def test_what_is_refused_before_its_body_was_read(strict, path, kind, status):
    """A body of the usual size is read and dropped, and the connection is kept; one without end is not."""
    with connect(strict) as connection:
        connection.sendall(post(path, b"x", kind=kind, size=1 << 19))
        assert answer(connection)[0] == status
        connection.sendall(b"x" * ((1 << 19) - 1) + VERSION)
        assert answer(connection)[0] == 200
        connection.sendall(post(path, b"x", kind=kind, size=1 << 40))
        assert answer(connection)[0] == status
        connection.settimeout(SECONDS)
        sent = 0
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while sent < 1 << 28:
                sent += connection.send(b"x" * (1 << 20))
    assert httpx.get(strict.url + "/version").status_code == 200


def test_an_announced_body_is_not_awaited_after_a_refusal(strict):
    with connect(strict) as connection:
        connection.sendall(post("/v1/completions", b"", "Expect: 100-continue", kind="text/plain", size=10))
        status, headers, _ = answer(connection)
        assert status == 415 and headers["connection"] == "close" and rest(connection) == b""
    body = json.dumps({**BODY, "max_tokens": 1}).encode()
    with connect(strict) as connection:
        connection.sendall(post("/v1/completions", b"", "Expect: 100-continue", size=len(body)))
        assert answer(connection)[0] == 100
        connection.sendall(body)
        assert answer(connection)[0] == 200


def test_what_is_no_http_gets_an_error_of_the_usual_form(strict):
    for wrong in NO_HTTP:
        with connect(strict) as connection:
            connection.sendall(wrong)
            status, headers, content = answer(connection)
            assert (status, headers["content-type"]) == (400, "application/json"), wrong
            assert code_of(content) == "invalid_http"
            assert rest(connection) == b""


def test_a_connection_that_says_nothing_is_closed_without_a_word(strict):
    """Browsers open connections in advance; a 408 on one would be taken for the answer to a later request."""
    with connect(strict) as connection:
        assert rest(connection) == b""


def stream(tokens) -> bytes:
    body = json.dumps({**BODY, "max_tokens": tokens, "stream": True}).encode()
    return post("/v1/completions", body)


@pytest.mark.parametrize(
    ("next_one", "answered"),
    [(b"NO HTTP\r\n\r\n", 0), (VERSION * 6, 4), (b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 18), 0)],
)
def test_no_refusal_is_written_into_an_answer(strict, next_one, answered):
    """What follows too early is dropped, beyond four requests; the answer before it is whole."""
    with connect(strict) as connection:
        connection.sendall(stream(20) + next_one)
        content = rest(connection)
    first, _, later = content.partition(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert first.count(b"data: {") == 20 and b"error" not in first and first.count(b"HTTP/1.1") == 1
    assert later.count(b"HTTP/1.1 200 OK") == later.count(b"HTTP/1.1") == answered


def test_requests_that_follow_early_are_answered_in_order(strict):
    with connect(strict) as connection:
        body = json.dumps({**BODY, "max_tokens": 5}).encode()
        connection.sendall(post("/v1/completions", body) + VERSION * 2)
        found = [answer(connection) for _ in range(3)]
    assert [status for status, *_ in found] == [200] * 3 and b"choices" in found[0][2]
    assert b"version" in found[1][2] and found[1][2] == found[2][2]


def test_a_client_that_leaves_with_another_request_waiting_is_seen(strict):
    with connect(strict) as connection:
        connection.sendall(stream(200) + VERSION)
        until(lambda: httpx.get(strict.url + "/health").json()["running"] == 1)
    until(lambda: httpx.get(strict.url + "/health").json()["running"] == 0)
    until(lambda: any(line["status"] == 499 for line in strict.lines()))


def test_headers_after_a_body_in_chunks_mean_nothing(strict):
    body = json.dumps({**BODY, "max_tokens": 2}).encode()
    chunks = b"%x\r\n%b\r\n0\r\nX-Timeout: nonsense\r\nX-Request-Id: later\r\n\r\n" % (len(body), body)
    with connect(strict) as connection:
        connection.sendall(post("/v1/completions", chunks, "Transfer-Encoding: chunked", size="chunked"))
        status, headers, _ = answer(connection)
        assert status == 200 and headers["x-request-id"] != "later"


def test_a_wish_for_another_protocol_is_passed_over(strict):
    """Java's client asks for HTTP/2 with its first request, whose body has to be read all the same."""
    more = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    body = json.dumps({**BODY, "max_tokens": 2}).encode()
    with connect(strict) as connection:
        for size in (len(body), 20):  # its body comes with it, and in parts
            content = post("/v1/completions", body, *more)
            connection.sendall(content[:-size])
            connection.sendall(content[-size:])
            status, _, found = answer(connection)
            assert status == 200 and b"choices" in found
        connection.sendall(VERSION)
        assert answer(connection)[0] == 200


def unread(server, content) -> socket.socket:
    """Sends a request, and reads nothing of its answer."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(SECONDS)
    connection.connect((host, int(port)))
    connection.sendall(content)
    return connection


def open_connections(server) -> int:
    """Connections of the server, as the system counts them."""
    from psutil import Process

    return sum(each.status == "ESTABLISHED" for each in Process(server.process.pid).net_connections("tcp"))


def test_a_client_that_does_not_read_a_whole_answer_is_dropped(strict):
    """It is larger than all buffers between the two."""
    body = json.dumps({"prompt": "却" * 300000, "return_token_strs": True}, ensure_ascii=False).encode()
    until(lambda: open_connections(strict) == 0)
    with unread(strict, post("/tokenize", body)):
        until(lambda: open_connections(strict) == 1)
        until(lambda: open_connections(strict) == 0)


def test_refused_requests_are_counted(strict):
    for _ in range(2):
        with connect(strict) as connection:
            connection.sendall(b"NO HTTP\r\n\r\n")
            rest(connection)
    figures = httpx.get(strict.url + "/metrics").text
    assert 'pangu:rejected_total{reason="invalid_http"}' in figures
