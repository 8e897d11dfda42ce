"""Files of this machine and of an S3 server on it: whole or not at all, found by patterns."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
import small_corpus

from pangu_alpha.corpus.engine import store
from pangu_alpha.corpus.stages import result_of

BUCKET = "corpus"


@pytest.fixture
def s3(monkeypatch):
    """The address of a bucket on a server of moto's."""
    server = pytest.importorskip("moto.server", reason="moto, of the extra dev, is not installed")
    for key, value in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"),
                       ("AWS_EC2_METADATA_DISABLED", "true")):  # fmt: skip
        monkeypatch.setenv(key, value)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*running.get_host_and_port()))
    monkeypatch.setattr(store, "_SYSTEMS", {})
    import boto3

    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
    yield f"s3://{BUCKET}"
    running.stop()


def test_a_local_file_appears_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "new" / "a.bin")
    store.write_bytes(path, b"one")
    with pytest.raises(RuntimeError), store.writing(path) as stream:
        stream.write(b"two")
        raise RuntimeError
    assert store.read_bytes(path) == b"one" and store.names(str(tmp_path / "new")) == ["a.bin"]
    assert store.size(path) == 3 and store.size(f"{path}x") is None and store.names(f"{path}x") == []
    store.remove(path)
    store.remove(path)
    assert store.size(path) is None


@pytest.mark.parametrize(
    "folder", ["/a/stages/write-1", "s3://bucket/a/stages/write-1", "out/stages/write-1"]
)
def test_paths_are_kept_as_seen_from_their_folder(folder):
    path = store.join(folder.removesuffix("/stages/write-1"), "web", "part-00000.parquet")
    assert store.relative(path, folder) == "../../web/part-00000.parquet"
    assert store.below(folder, store.relative(path, folder)) == path


def test_objects_are_written_read_listed_and_removed(s3):
    big = bytes(range(256)) * 50_000  # 12.8 MB: more than one part of an upload
    store.write_bytes(f"{s3}/in/a.bin", big)
    store.write_bytes(f"{s3}/in/b/c.bin", b"c")
    with store.open_input(f"{s3}/in/a.bin") as stream:
        stream.seek(257)
        assert stream.read(3) == bytes([1, 2, 3])
    assert store.read_bytes(f"{s3}/in/a.bin") == big and store.size(f"{s3}/in/a.bin") == len(big)
    assert store.names(f"{s3}/in") == ["a.bin", "b"] and store.names(f"{s3}/nothing") == []
    assert store.matching(f"{s3}/in/*.bin") == [f"{s3}/in/a.bin"]
    assert (
        store.matching(f"{s3}/in/**/*.bin")
        == [f"{s3}/in/a.bin", f"{s3}/in/b/c.bin"]
        == store.matching(f"{s3}/in")
    )
    assert store.size_and_stamp(f"{s3}/in/b/c.bin")[0] == 1
    with pytest.raises(RuntimeError), store.writing(f"{s3}/in/b/c.bin") as stream:
        stream.write(b"d")
        raise RuntimeError
    assert store.read_bytes(f"{s3}/in/b/c.bin") == b"c"
    store.remove(f"{s3}/in/a.bin")
    assert store.size(f"{s3}/in/a.bin") is None


@pytest.mark.parametrize("path", ["in/none.bin", "in/*.none"])
def test_what_is_missing_is_named(s3, path):
    with pytest.raises(FileNotFoundError) as error:
        store.read_bytes(f"{s3}/{path}") if "*" not in path else store.matching(f"{s3}/{path}")
    assert f"{s3}/{path}" in str(error.value)


@pytest.mark.long
def test_a_corpus_from_objects_to_objects_has_the_same_bytes(s3, tmp_path):
    paths = small_corpus.write_inputs(tmp_path / "in", count=30, files=3)
    for path in paths:
        store.write_bytes(f"{s3}/in/{path.name}", path.read_bytes())
    small_corpus.run(small_corpus.config(tmp_path / "in", tmp_path / "out"))
    sources = {
        "common_crawl": {"inputs": [f"{s3}/in/web-*.jsonl"]},
        "news": {"inputs": [f"{s3}/in/news-*.jsonl"]},
    }
    config = small_corpus.config(tmp_path, f"{s3}/out", sources=sources)
    small_corpus.run(config)
    here, there = result_of(str(tmp_path / "out")), result_of(f"{s3}/out")
    assert here["files"] == there["files"] and here["ledger"] == there["ledger"]
    name = next(iter(there["files"]))
    assert pq.read_table(io.BytesIO(store.read_bytes(f"{s3}/out/{name}"))).num_rows
    small_corpus.run(config)  # all of it is there and fits
    (record,) = [each for each in store.names(f"{s3}/out") if each.endswith(".json")]
    assert json.loads(store.read_bytes(f"{s3}/out/{record}")) == there
