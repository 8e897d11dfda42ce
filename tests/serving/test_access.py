"""Keys, limits a minute, and the bound of the queue."""

from __future__ import annotations

import base64
import os

import pytest

from pangu_alpha.config.schema import ConfigError
from pangu_alpha.config.serve import ServeConfig, load_serve_config
from pangu_alpha.serving.access.admission import Admission
from pangu_alpha.serving.access.buckets import Limiter
from pangu_alpha.serving.access.keys import Key, presented, read_keys
from pangu_alpha.serving.wire.errors import ApiError
from tests.serving.running import digest


@pytest.fixture
def key_file(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "keys"
        path.write_text(text, "utf-8")
        os.chmod(path, mode)
        return path

    return write


def test_a_key_file(key_file):
    keys = read_keys(
        key_file(f"# ours\nanna:{digest('a')}\n\nbert:{digest('b')}:doctor,couplets:60:1000\n"),
        ["doctor", "couplets"],
    )
    assert keys.find("a") == Key("anna", digest("a"))
    assert keys.find("b") == Key("bert", digest("b"), ("doctor", "couplets"), 60, 1000)
    assert keys.find("c") is None and keys.find("") is None and bool(keys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("anna", "line 1: not of the form NAME:SHA256"),
        ("anna:secret", "anna: the second part is no SHA-256"),
        (f"anna:{'0' * 64}:docter", "anna: no scenario is called 'docter'; did you mean 'doctor'"),
        (f"anna:{'0' * 64}::none", "a limit a minute must be a whole number"),
        (f"anna:{'0' * 64}::0", "a limit a minute must be a whole number"),
        (f"anna:{'0' * 64}::{'9' * 5000}", "a limit a minute must be a whole number"),
        (f"anna:{'0' * 64}:,", "anna: no scenario is called ''"),
        (f"anna:{'0' * 64}:doctor,", "anna: no scenario is called ''"),
        (f"anna:{'0' * 64}\nanna:{'1' * 64}", "line 2: the name anna stands twice"),
        (f"anna:{'0' * 64}\nbert:{'0' * 64}:doctor", "line 2: bert has the same key as anna"),
        (f"anna:{'0' * 64}:::::", "not of the form"),
    ],
)
def test_bad_key_files_are_refused_and_no_key_is_shown(key_file, text, words):
    with pytest.raises(ValueError) as error:
        read_keys(key_file(text), ["doctor"])
    assert words in str(error.value) and "secret" not in str(error.value)


def test_a_key_file_that_others_can_read_is_refused(key_file):
    with pytest.raises(ValueError, match=r"can be read or written by others \(mode 0640\); run chmod 600"):
        read_keys(key_file(f"anna:{'0' * 64}", 0o640), [])


def test_how_a_key_is_presented(key_file):
    basic = base64.b64encode(b"anybody:the:key").decode()
    assert (
        presented("Bearer x") == presented("bearer  x ") == "x" and presented(f"Basic {basic}") == "the:key"
    )
    for secret in ("schlüssel", "钥匙"):  # a header's bytes come as Latin-1
        header = f"Bearer {secret}".encode().decode("latin-1")
        assert presented(header) == secret and read_keys(key_file(f"k:{digest(secret)}"), []).find(secret)
    no_text = base64.b64encode(b"\xff").decode()
    for wrong in ("", "Bearer", "Bearer \xff", "x", "Basic !!!", f"Basic {no_text}", "Digest x"):
        assert presented(wrong) is None


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


def test_limits_a_minute():
    clock = Clock()
    limiter, key = Limiter(clock), Key("anna", "", (), 2, 120)
    headers = limiter.take(key, 30)
    assert headers["x-ratelimit-limit-requests"] == "2" and headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-remaining-tokens"] == "90" and headers["x-ratelimit-reset-tokens"] == "15.0s"
    limiter.take(key, 30)
    with pytest.raises(ApiError) as error:
        limiter.take(key, 1)
    assert error.value.code == "rate_limit_exceeded" and error.value.headers["Retry-After"] == "30"
    clock.now += 30
    limiter.take(key, 120)  # all that the bucket holds again
    clock.now += 30
    with pytest.raises(ApiError, match="120 tokens a minute; try again in 30 s"):
        limiter.take(key, 120)
    limiter.settle(key, 120, 20)  # the first one used only 20 of its estimate
    limiter.take(key, 120)
    assert limiter.take(None, 10**9) == {} == limiter.take(Key("free", ""), 10**9)


def test_more_than_a_bucket_holds_takes_all_of_it():
    limiter, key = Limiter(Clock()), Key("anna", "", (), None, 100)
    clock = limiter._clock
    assert limiter.take(key, 10**6)["x-ratelimit-remaining-tokens"] == "0"
    clock.now += 30
    assert limiter.take(key, 50)["x-ratelimit-remaining-tokens"] == "0"  # half of it has come back by then
    limiter.settle(key, 10**6, 90)  # of the first estimate all that there was had been taken: 100
    limiter.take(key, 10)
    with pytest.raises(ApiError):
        limiter.take(key, 1)


def test_the_queue_is_bounded_in_requests_and_tokens():
    admission = Admission(slots=2, queue=2, queue_tokens=100)
    first = admission.enter(2, 10)
    for _ in range(2):
        admission.started(first)
    assert (admission.running, admission.waiting, admission.full) == (2, 0, False)
    second = admission.enter(1, 60)
    with pytest.raises(ApiError) as error:
        admission.enter(1, 50)
    assert error.value.status == 429 and error.value.code == "queue_full"
    assert error.value.headers["Retry-After"] == "2"
    admission.enter(1, 40)
    assert admission.full and admission.waiting == 2
    admission.leave(second)
    assert not admission.full and admission.waiting == 1


def test_requests_that_come_at_the_same_moment_wait_only_if_no_slot_is_free():
    """Of 12 before the engine's next tick, one takes the slot and two wait."""
    admission, taken = Admission(slots=1, queue=2, queue_tokens=1000), []
    for _ in range(12):
        try:
            taken.append(admission.enter(1, 10))
        except ApiError as error:
            assert "2 requests are waiting" in str(error)
    assert len(taken) == 3 and admission.waiting == 3 and admission.full
    admission.started(taken[0])
    assert admission.waiting == 2 and admission.full
    admission.ended(taken[0])
    admission.leave(taken[0])
    assert not admission.full  # the first of the two is as good as in its slot
    admission.enter(1, 10)
    assert admission.full


def test_a_request_of_more_samples_than_slots_are_free_waits():
    admission = Admission(slots=4, queue=1, queue_tokens=1000)
    admission.enter(3, 10)
    admission.enter(2, 10)
    with pytest.raises(ApiError):
        admission.enter(1, 10)  # the one free slot is the second request's


def test_without_a_queue_free_slots_are_still_given():
    admission = Admission(slots=2, queue=0, queue_tokens=1)
    admission.enter(1, 500)
    admission.enter(1, 500)
    with pytest.raises(ApiError):
        admission.enter(1, 1)


def test_a_request_of_two_samples_does_not_fit_one_free_slot():
    admission = Admission(slots=2, queue=0, queue_tokens=1)
    first = admission.enter(1, 1)
    with pytest.raises(ApiError):
        admission.enter(2, 1)
    admission.leave(first)
    admission.enter(2, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host": "0.0.0.0"}, "host: 0.0.0.0 can be reached by others, and no keys are set"),
        ({"cors_origin": ["*"]}, "cors_origin: \\* would let every web site use the server"),
        ({"certificate": "x"}, "certificate: TLS needs both"),
        ({"model_name": "a/b"}, "model_name: must be of letters"),
        ({"slots": 0}, "slots: 0 must lie in"),
        ({"context": 63}, "context: 63 must be at least 64"),
        ({"slotz": 1}, "slotz: unknown key; did you mean 'slots'"),
    ],
)
def test_a_server_that_must_not_be_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        load_serve_config(None, (), values)


def test_the_command_line_goes_before_words_before_the_file(tmp_path):
    (tmp_path / "serve.yaml").write_text("serve: {slots: 2, queue: 3, port: 1}", "utf-8")
    found = load_serve_config(str(tmp_path / "serve.yaml"), ("serve.queue=5", "serve.port=2"), {"port": 7})
    assert (found.slots, found.queue, found.port) == (2, 5, 7)
    assert load_serve_config(None, (), {}) == ServeConfig()
    with pytest.raises(ConfigError, match="serv: unknown key"):
        load_serve_config(None, ("serv.slots=1",), {})
