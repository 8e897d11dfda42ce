from __future__ import annotations

import gzip
import io
import random

import pytest
import warcio
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders

from pangu_alpha.corpus.reading.warc import warc_records


def archive(packed, pages, size=200):
    """A WARC of `pages` responses between an info record and requests, as crawlers write it."""
    out, dice = io.BytesIO(), random.Random(3)
    writer = warcio.WARCWriter(out, gzip=packed)
    writer.write_record(writer.create_warcinfo_record("x.warc", {"software": "test"}))
    for number in range(pages):
        body = dice.randbytes(dice.randint(0, size)) + b"\r\n\r\nWARC/1.0\r\nnot a header"
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
        uri = f"http://h/{number}"
        request = StatusAndHeaders("GET / HTTP/1.1", [], is_http_request=True)
        for kind, http, payload in (("request", request, b""), ("response", headers, body)):
            made = writer.create_warc_record(uri, kind, payload=io.BytesIO(payload), http_headers=http)
            writer.write_record(made)
    return out.getvalue()


def ours(data, packed, start=0, stop=None, largest=1 << 20):
    return list(warc_records(io.BytesIO(data), packed, start, len(data) if stop is None else stop, largest))


def ids(records):
    return [each.headers.get("warc-record-id") for each in records]


@pytest.mark.parametrize("packed", [False, True])
def test_records_equal_those_of_warcio(packed):
    data = archive(packed, 50, 3000)
    theirs = []
    records = ArchiveIterator(io.BytesIO(data), no_record_parse=True)
    for each in records:
        content = each.raw_stream.read()  # the place is known only after this
        name = each.rec_headers.get_header("WARC-Record-ID")
        theirs.append((name, content, records.get_record_offset()))
    found = ours(data, packed)
    assert [(r.headers["warc-record-id"], r.content, r.place) for r in found] == theirs
    assert not any(each.fault for each in found)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [1, 7, 97, 1000, 10**6])
def test_parts_hold_each_record_once(packed, size):
    data = archive(packed, 12, 100)
    whole = ours(data, packed)
    parts = [ours(data, packed, at, min(at + size, len(data))) for at in range(0, len(data), size)]
    assert [each for part in parts for each in part] == whole


def test_every_cut_of_a_plain_file_loses_only_the_last_record():
    data = archive(False, 4, 60)
    whole = ours(data, False)
    for cut in range(0, len(data), 13):
        found = ours(data[:cut], False)
        good = [each for each in found if not each.fault]
        assert good == whole[: len(good)]
        assert sum(bool(each.fault) for each in found) <= 1
        assert len(good) >= sum(r.place + r.size + 700 < cut for r in whole)


def test_every_cut_of_a_packed_file_loses_only_the_last_record():
    data = archive(True, 4, 60)
    whole = ours(data, True)
    for cut in range(0, len(data), 13):
        found = ours(data[:cut], True)
        good = [each for each in found if not each.fault]
        assert good == whole[: len(good)]
        ends = [*(each.place for each in whole[1:]), len(data)]
        assert len(good) == sum(end <= cut for end in ends) or found[-1].fault


@pytest.mark.parametrize("packed", [False, True])
def test_damage_in_the_middle_costs_only_the_records_it_hits(packed):
    data = bytearray(archive(packed, 40, 2000))
    whole = ours(bytes(data), packed)
    hit = whole[31]
    data[hit.place + 5 : hit.place + 45] = b"\xff" * 40
    found = ours(bytes(data), packed)
    good = ids([each for each in found if not each.fault and each.content is not None])
    assert [each for each in ids(whole) if each not in good] == [hit.headers["warc-record-id"]]
    assert any(each.fault for each in found)


def test_bytes_between_members_are_a_fault_and_padding_is_none():
    data = archive(True, 5)
    whole = ours(data, True)
    at = whole[9].place
    zeroed = data[:at] + bytes(3) + data[at + 3 :]  # its first bytes, by which a member is known
    for damaged, lost in ((zeroed, 1), (data[:at] + b"\xff" * 500 + data[at:], 0)):
        found = ours(damaged, True)
        assert sum(bool(each.fault) for each in found) == 1
        assert len([each for each in found if not each.fault]) == len(whole) - lost
    assert [each.fault for each in ours(archive(False, 5), True)] == ["bytes that are no gzip member"]
    assert ids(ours(data + bytes(1000) + b"\r\n", True)) == ids(whole)


def test_a_length_of_thousands_of_digits_is_a_fault():
    found = ours(b"WARC/1.0\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n" + archive(False, 1), False)
    assert found[0].fault == "a header without a Content-Length" and len(found) > 1


def test_all_records_in_one_member_are_read():
    data = archive(False, 20, 500)
    assert ids(ours(gzip.compress(data), True)) == ids(ours(data, False))


def test_a_record_larger_than_allowed_is_passed_over():
    data = archive(False, 3, 100_000)
    found = ours(data, False, largest=2000)
    assert ids(found) == ids(ours(data, False))
    assert all((each.content is None) == (each.size > 2000) for each in found)


@pytest.mark.parametrize("size", [10, 5_000, 262_144, 300_000, 3_000_000])
def test_records_behind_a_large_one_are_read(size):
    """Large and small members in one buffer, whatever their packed sizes."""
    line = b"%d, and so on\n"
    bodies = [line * 3, b"".join(line % n for n in range(size // 14 + 1))[:size], *([line] * 40)]
    records = [b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n%b\r\n\r\n" % (len(body), body)
               for body in bodies]  # fmt: skip
    data = b"".join(gzip.compress(record) for record in records)
    assert [each.content for each in ours(data, True, largest=1 << 23)] == bodies


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n"])
def test_nothing_holds_no_record(data):
    assert ours(data, False) == ours(data, True) == []


def test_what_is_no_warc_is_one_fault():
    found = ours(b"<html>" * 1000, False)
    assert [(each.size, bool(each.fault)) for each in found] == [(6000, True)]
