"""Every window of a source is read once an epoch, whatever becomes of the mixture at the resumes of a run."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.data.order import Mixture, Permutation
from pangu_alpha.data.position import Position, SourcePlace, changes, kept_position, plan_table

SIZES = {"a": 700, "b": 300, "c": 50, "d": 1}


def source(name, weight=1.0, records=None, windows=None):
    """A source whose records have its own name unless told otherwise."""
    records = records or name
    return SourcePlace.new(name, weight, windows or SIZES[records], records)


def reread(position):
    """The position as a checkpoint gives it back."""
    return kept_position({}, json.loads(json.dumps({"mixture": to_mapping(position)})), position.since)


class Reader:
    """Reads samples as a run does and keeps every window, by the records that it is of."""

    def __init__(self, sources):
        self.position, self.samples, self.windows = Position(0, tuple(sources)), 0, {}

    def read(self, count):
        places, draws = self.position(np.arange(self.samples, self.samples + count))
        for place, found in enumerate(self.position.present):
            windows = Permutation(found.windows, 1, found.order)(draws[places == place])
            self.windows.setdefault(found.records, []).extend(windows.tolist())
        self.samples += count
        return self

    def go_on(self, *sources):
        self.position = reread(self.position).change(self.samples, sources)
        return self

    def check(self):
        """Whole epochs hold every window once, and the last one none twice."""
        assert sum(map(len, self.windows.values())) == self.samples
        for records, windows in self.windows.items():
            size = SIZES[records]
            for first in range(0, len(windows), size):
                epoch = windows[first : first + size]
                assert len(set(epoch)) == len(epoch), records
                assert len(epoch) == size or first + size > len(windows)


def test_changed_weights_neither_repeat_nor_lose_a_window():
    """0.9 / 0.1 for 1,000 samples, then 0.5 / 0.5: 400 windows were read again, 400 others lost."""
    reader = Reader([source("a", 0.9), source("b", 0.1)]).read(1000)
    reader.go_on(source("a", 0.5), source("b", 0.5)).read(400)
    assert [place.draws for place in reader.position.sources] == [900, 100]
    assert len(reader.windows["a"]) == 1100 and len(set(reader.windows["b"])) == 300
    reader.check()


@pytest.mark.parametrize("seed", range(40))
def test_any_sequence_of_changes_reads_every_window_once_an_epoch(seed):
    chance = random.Random(seed)
    reader = Reader([source("a", 0.7), source("b", 0.3)])
    for _ in range(chance.randrange(1, 8)):
        reader.read(chance.randrange(0, 900))
        records = chance.sample([*SIZES], chance.randrange(1, len(SIZES) + 1))
        names = chance.sample(["a", "b", "c", "d", "x", "y"], len(records))  # renamed at will
        weights = [chance.choice([0.1, 0.25, 1, 3, 1 / 3]) for _ in records]
        reader.go_on(*map(source, names, weights, records))
    reader.read(1500).check()
    assert sum(place.draws for place in reader.position.at(reader.samples)) == reader.samples


def test_an_unchanged_mixture_is_the_old_closed_form():
    position = Position(0, (source("a", 0.7), source("b", 0.3)))
    same = position.change(123, [source("a", 7), source("b", 3)])  # another way to write it
    assert same.since == 0 and [place.draws for place in same.sources] == [0, 0]
    samples = np.arange(2000)
    for found, expected in zip(same(samples), Mixture({"a": 0.7, "b": 0.3})(samples), strict=True):
        assert np.array_equal(found, expected)


def test_a_change_that_is_taken_back_goes_on_from_where_each_source_is():
    reader = Reader([source("a", 0.9), source("b", 0.1)]).read(100)
    reader.go_on(source("b")).read(50).go_on(source("a", 0.9), source("b", 0.1))
    assert [(place.name, place.draws) for place in reader.position.present] == [("a", 90), ("b", 60)]
    reader.read(3000).check()


def test_the_place_of_a_resume_alone_decides_the_batches():
    """Where several changes fall on one sample, only the last one counts."""
    one = Reader([source("a", 0.9), source("b", 0.1)]).read(500)
    one.go_on(source("a", 0.2), source("b", 0.8)).go_on(source("a"), source("b"))
    other = Reader([source("a", 0.9), source("b", 0.1)]).read(500).go_on(source("a"), source("b"))
    assert one.position == other.position


def test_other_records_of_a_name_are_read_from_their_first_window(caplog):
    reader = Reader([source("a"), source("b")]).read(300)
    before = reader.position
    reader.go_on(source("a", records="c"), source("b"))
    (note,) = changes(before, reader.position)
    assert note.startswith("data.train.a: its records are others than before, so it is read from their first")
    assert [(s.name, s.records, s.draws, s.weight) for s in reader.position.sources] == [
        ("a", "c", 0, 1.0), ("b", "b", 150, 1.0), ("a", "a", 150, None),
    ]  # fmt: skip
    reader.read(200).go_on(source("a"), source("b"))  # the old ones again
    assert reader.position.sources[0].draws == 150
    reader.read(900).check()


def test_a_renamed_source_keeps_its_place_and_order():
    reader = Reader([source("a"), source("b")]).read(300)
    before = reader.position
    reader.go_on(source("prose", records="a"), source("b"))
    place = reader.position.sources[0]
    assert (place.name, place.order, reader.position.since) == ("prose", "a", 0)  # nothing else has changed
    assert [*changes(before, reader.position)] == [
        "data.train.prose: has the records of a, so it goes on in its place and order"
    ]
    reader.go_on(source("b", records="a"), source("a", records="b")).read(1300).check()  # names exchanged


def test_what_becomes_of_a_source_is_said():
    before = Position(0, (source("a"), source("b")))
    alone = before.change(10, [source("a")])
    more = alone.change(20, [source("a"), source("c")])
    assert [*changes(before, before)] == []
    assert [*changes(before, alone)] == [
        "data.train.b: left the mixture; if it comes back, it goes on where it was"
    ]
    assert [*changes(alone, more)] == ["data.train.c: a new source"]
    back = more.change(30, [source("a"), source("b"), source("c")])
    assert [*changes(more, back)] == ["data.train.b: is back in the mixture and goes on where it was"]
    assert [place.draws for place in back.sources] == [20, 5, 5]


def test_an_older_checkpoint_says_its_weights_in_its_config():
    config = {
        "data": {"train": {"a": {"records": "there", "weight": 0.9}, "b": {"records": "x", "weight": 0.1}}}
    }
    for state in ({"records": {"a": "a", "b": "b"}}, {}):  # still older ones have no digests
        before = kept_position(config, state, 1000)
        after = before.change(1000, [source("a", 0.5), source("b", 0.5)])
        assert [place.draws for place in after.sources] == [900, 100]
        assert [place.records for place in after.sources] == ["a", "b"]
        assert [*changes(before, after)] == []
        assert before.change(1000, [source("a", 0.9), source("b", 0.1)]).since == 0


def test_a_checkpoint_of_another_program_says_nothing():
    assert kept_position({"model": {}}, {}, 0) is None
    assert kept_position({"data": {"train": {}}}, {}, 5) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"since": 7}, "since: 7, but the sources gave 0 samples"),
        ({"since": -1}, r"since: -1 must lie in \[0, 2\^63\)"),
        ({"since": "x"}, "since: expected a whole number"),
        ({"sources": []}, "sources: those in the mixture must stand first, and there must be one"),
        (
            {"sources": [to_mapping(source("a")), to_mapping(source("a"))]},
            "sources: two in the mixture have one name",
        ),
        ({"sources": 3}, "sources: expected a list of a mapping"),
        ({"sources": [{"name": "a"}]}, "weight: missing"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_a_position_that_does_not_add_up_is_refused(change, message):
    state = to_mapping(Position(0, (source("a"),))) | change
    with pytest.raises(ConfigError, match=message):
        kept_position({}, {"mixture": state}, 100)


def test_a_position_beyond_its_place_is_refused():
    state = to_mapping(Position(0, (source("a"),)).change(50, [source("a"), source("b")]))
    with pytest.raises(ConfigError, match=r"state.mixture.since: 50 is beyond the place 49"):
        kept_position({}, {"mixture": state}, 49)


def test_ranks_can_compare_positions():
    position = Position(0, (source("a"), source("b")))
    assert position.fingerprint == reread(position).fingerprint
    others = [position.change(10, [source("a"), source("b", 2)]), position.change(10, [source("a")])]
    assert len({each.fingerprint for each in (position, *others)}) == 3
    assert all(-(2**63) <= each.fingerprint < 2**63 for each in others)


def test_the_plan_shows_tokens_and_epochs_and_warns_of_many():
    position = Position(0, (source("a", 1, windows=100), source("b", 3, windows=100_000)))
    lines = plan_table(position, 10_000, 1024).splitlines()
    assert lines[0].split() == ["source", "share", "windows", "tokens", "to", "read", "epochs"]
    assert lines[1].split() == ["a", "25.00%", "100", "2,560,000", "25.00"]
    assert lines[2].split() == ["b", "75.00%", "100,000", "7,680,000", "0.07"]
    assert lines[3].split() == ["total", "100,100", "10,240,000"]
    assert len(lines) == 5 and lines[4].startswith("warning: 'a' is read 25.0 times")


def test_the_plan_of_a_resumed_run_counts_what_was_read_before():
    position = Position(0, (source("a", 0.9), source("b", 0.1), source("c", 1.0)))
    position = position.change(1000, [source("a", 0.5), source("b", 0.5)])
    lines = plan_table(position, 1800, 16, now=1400).splitlines()
    assert lines[0].split()[-3:] == ["epochs", "so", "far"]
    assert lines[1].split() == ["a", "50.00%", "700", f"{850 * 16:,}", "1.21", "0.93"]
    assert lines[2].split() == ["b", "50.00%", "300", f"{450 * 16:,}", "1.50", "0.83"]
    assert lines[3].split() == ["c", "left", "50", f"{500 * 16:,}", "10.00", "10.00"]
    assert lines[4].split() == ["total", "1,000", f"{1800 * 16:,}"]
    # a run that is over: fewer steps are asked for than have been done
    assert plan_table(position, 10, 16, now=1400).splitlines()[1].split()[3] == f"{650 * 16:,}"
    old = Position(0, (replace(source("a"), windows=0), source("b"))).change(10, [source("b")])
    assert plan_table(old, 20, 16, 10).splitlines()[2].split() == ["a", "left", "-", "80", "-", "-"]
