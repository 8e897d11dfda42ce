"""Names of servers as people copy them from ssh, Slurm and MPI."""

from __future__ import annotations

import pytest

from pangu_alpha.cluster.host_names import _words, server_ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("10.1.0.12", ("10.1.0.12",)),
        ("root@10.1.0.12", ("10.1.0.12",)),
        ("npu-node-00.cluster.local", ("npu-node-00.cluster.local",)),
        ("fd00::1", ("fd00::1",)),
        ("[fd00::1]", ("fd00::1",)),
        ("::ffff:10.0.0.1", ("::ffff:10.0.0.1",)),
        ("node[01-04]", ("node01", "node02", "node03", "node04")),
        ("node[09-11,20]", ("node09", "node10", "node11", "node20")),
        ("r[1-2]n[1,3]-ib", ("r1n1-ib", "r1n3-ib", "r2n1-ib", "r2n3-ib")),
        ("a,b[1-2],root@c", ("a", "b1", "b2", "c")),
        ("10.0.0.[1-3]", ("10.0.0.1", "10.0.0.2", "10.0.0.3")),
    ],
)
def test_servers_that_a_word_names(text, ids):
    assert server_ids(text) == ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.1.0.11:22", "leave out :22; a rank table has no port"),
        ("root@node1:8", "'root@node1:8': leave out :8"),
        ("[fd00::1]:22", "leave out :22"),
        ("node[01-", "a bracket is not closed"),
        ("node]1[", "a bracket is not closed"),
        ("node[]", "brackets hold numbers and ranges"),
        ("node[4-1]", "brackets hold numbers and ranges"),
        ("node[a-c]", "brackets hold numbers and ranges"),
        ("node[1-999999999]", "brackets hold numbers and ranges"),
        ("a[1-9999]b[1-9999]", "names more than 16,384 servers"),
        ("[workers]", "brackets hold numbers and ranges"),
        ("a,,b", "'' is no name of a server"),
        ("root@", "'root@' is no name of a server"),
        ("a\x1b[31mb", r"'a\\x1b\[31mb' is no name of a server"),
    ],
)
def test_words_that_name_none(text, words):
    with pytest.raises(ValueError, match=words) as refused:
        server_ids(text)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", [""]),
        ("a,,b[1,2]c,d", ["a", "", "b[1,2]c", "d"]),
        ("a[1,2][3,4],b]", ["a[1,2][3,4]", "b]"]),
        ("a[1,b[2,3],c", ["a[1", "b[2,3]", "c"]),
        ("[" * 3 + ",", ["[[[", ""]),
        ("a," * 500_000 + "b", ["a"] * 500_000 + ["b"]),  # a megabyte took 20 s
    ],
    ids=range(6),
)
def test_commas_outside_of_brackets_part_words(text, words):
    assert _words(text) == words
