"""The page's figures are those of the ledger and the files; it is always the same, and hides what it must."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_corpus

from pangu_alpha.corpus.report import explain, explain_text, measured, write_report
from pangu_alpha.corpus.report.finished import FinishedRun
from pangu_alpha.corpus.report.samples import shown_piece
from pangu_alpha.corpus.rules import RULE_NAMES, RULES, Context, WordList, profile

ADVERTISEMENT = "<b>点击购买</b>，手机 13812345678，" + "全场包邮，立即抢购，优惠大酬宾。" * 20


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    small_corpus.write_inputs(folder / "in", count=60, files=4)
    rows = [
        {"text": text, "url": f"http://odd.example/{n}"} for n, text in enumerate([ADVERTISEMENT, "短页。"])
    ]
    (folder / "in" / "web-9.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    small_corpus.run(small_corpus.config(folder / "in", folder / "out"))
    return folder / "out"


@pytest.fixture(scope="module")
def run(output):
    return FinishedRun(str(output))


@pytest.fixture(scope="module")
def page(output):
    return Path(write_report(str(output))).read_text("utf-8")


def measure_rows(output):
    paths = output.glob("stages/filter-*/*.measures.parquet")
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_distributions_overlap_and_samples_are_those_of_a_plain_loop(run, output):
    found = measured.measure_run(run)
    rows = measure_rows(output)
    crawl = run.profile.bounds_of("common_crawl")
    masks = np.array([[row["mask"] >> place & 1 for place in range(len(RULES))] for row in rows])
    assert found.documents == len(rows) and (found.overlap == masks.T @ masks).all()
    web = [row for row in rows if row["id"] >> 32 in web_files(run)]
    bounded = {name for name, bound in zip(RULE_NAMES, crawl, strict=True) if not np.isnan(bound)}
    assert {*found.by_rule} == bounded
    for name in ("characters", "han_share", "advertisement_words"):
        each, place = found.by_rule[name], RULE_NAMES.index(name)
        assert each.counts.sum() == len(web)
        broken = [row for row in web if row["mask"] >> place & 1]
        assert each.counts[each.wrong].sum() == len(broken)
        reason = {row["id"] for row in web if row["reason"] == name}
        assert {id for *_, id, _ in found.dropped[name].held} <= reason
        kept = sorted(abs(row[name] - each.bound) for row in web if not row["mask"])[: measured.SAMPLES]
        assert [key for key, *_ in found.kept[name].held] == pytest.approx(kept)


def web_files(run):
    return {number for number, each in enumerate(run.inputs) if each["source"] == "common_crawl"}


def test_the_bar_of_the_bound_is_cut_at_it():
    rule = {each.name: each for each in RULES}
    least = measured.Distribution(rule["characters"], 150)
    least.add(np.array([149, 150, 151, 0, 5e8], np.float32))
    assert least.counts[least.wrong].sum() == 2 and least.counts.sum() == 5
    most = measured.Distribution(rule["kana_share"], float(np.float32(0.1)))
    most.add(np.array([0.1, 0.1001, 1.0, 0.0], np.float32))
    assert most.counts[most.wrong].sum() == 2 and most.counts.sum() == 4
    words = measured.Distribution(rule["advertisement_words"], 0)
    words.add(np.array([0, 0, 1, 7], np.float32))
    assert words.counts[words.wrong].sum() == 2 and words.counts.sum() == 4


def test_sizes_of_clusters_are_those_of_the_files(run, output):
    for stage, reason in (("exact", "exact_duplicate"), ("components", "near_duplicate")):
        sizes, numbers = measured.cluster_sizes(run, stage)
        dropped = sum(
            each["dropped"].get(reason, {"documents": 0})["documents"]
            for ledger in run.ledger.values()
            for each in ledger.values()
        )
        assert dropped > 0
        if stage == "exact":
            assert ((sizes - 1) * numbers).sum() == dropped
        pairs = measured.some_removals(run, stage)
        assert len(pairs) == min(dropped, measured.SAMPLES) and all(gone != kept for gone, kept in pairs)


def test_the_page_has_every_picture_and_figure_and_is_always_the_same(page, output, run):
    headings = "What was left", "Why documents were dropped", "What the rules measured", "Which rules agree"
    for line in (*headings, "clusters of duplicates", "Beside the paper", "Documents to look at"):
        assert line in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 6
    assert all(base64.b64decode(each)[:8] == b"\x89PNG\r\n\x1a\n" for each in pictures)
    for stage, ledger in run.ledger.items():
        for source, each in ledger.items():
            for reason, count in each["dropped"].items():
                assert f"<td>{stage}: {reason}</td><td>{source}</td><td>{count['documents']:,}</td>" in page
    assert "http://" not in re.sub(r"http://(example\.org|odd\.example)", "", page)  # it loads nothing
    digest = hashlib.sha256(page.encode()).hexdigest()
    assert hashlib.sha256(Path(write_report(str(output))).read_bytes()).hexdigest() == digest


def test_samples_are_escaped_masked_and_marked(page):
    assert "<mark>点击购买</mark>" in page and "<b>点击" not in page and "&lt;b&gt;" in page
    assert "13812345678" not in page
    assert "removed for" in page and "0 dropped" in page


def test_a_piece_is_cut_around_its_match_and_hides_sensitive_words():
    context = Context(WordList({"敏感词": "", "abc": ""}), WordList({"点击购买": ""}))
    text = "前" * 500 + "点击购买" + "后" * 500
    piece = shown_piece(text, "advertisement_words", context)
    assert piece == f"… {'前' * 60}<mark>点击购买</mark>{'后' * 236} …"
    assert shown_piece("这是敏感词和ＡＢＣ", "characters", context) == "这是■■■和■■■"
    assert "敏感" not in shown_piece("敏感词" * 100, "sensitive_words", context)
    lines = "重复的一行\n别的\n重复的一行"
    assert shown_piece(lines, "duplicate_lines", context) == "重复的一行<br>别的<br><mark>重复的一行</mark>"
    assert shown_piece("一二三四五一二三四六", "top_4gram", context) == "一二三四五<mark>一二三四</mark>六"
    assert "not shown" in shown_piece(text, "characters", None)


def test_explain_follows_a_document_to_its_end(output, run):
    said = explain(str(output), url="http://odd.example/1")
    assert (
        "record" in said
        and "filter: dropped, " in said
        and re.search(r"characters +3  at least 150: broken", said)
    )
    gone, kept = measured.some_removals(run, "exact")[0]
    assert f"exact: removed as an exact copy of document {kept}" in explain(str(output), id=gone)
    gone, kept = measured.some_removals(run, "components")[0]
    assert f"components: removed as a near copy of document {kept}" in explain(str(output), id=gone)
    assert re.search(r"write: kept; it stands for \d+ documents", explain(str(output), id=kept))
    with pytest.raises(ValueError, match="no document of the run has this URL"):
        explain(str(output), url="http://nowhere.example")
    for id in (99 << 32, -1, 0xFFFFFFFF):
        with pytest.raises(ValueError, match="no document with this id|has no record 4294967295"):
            explain(str(output), id=id)


def test_explain_of_a_text_says_what_each_rule_says():
    said = explain_text(ADVERTISEMENT, profile("pangu-alpha"), "common_crawl")
    assert "verdict: dropped, advertisement_words" in said
    assert len([line for line in said.splitlines() if line.startswith("    ")]) == len(RULES)
    assert "13812345678" not in said
    assert "verdict: kept" in explain_text(ADVERTISEMENT, profile("none"), "common_crawl")


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no finished corpus"):
        write_report(str(tmp_path))
