from __future__ import annotations

from pangu_alpha.proof.checks.order import Meeting, deadlock

PAIR = Meeting((0, 1), "AllReduce sum 8 float32", "layer/matmul")
OTHER = Meeting((0, 1), "AllGather 8 float32", "layer/gather")
WORLD = Meeting((0, 1, 2, 3), "AllReduce sum scalar float32", "update")
LAST = Meeting((2, 3), "AllReduce sum 8 float32", "layer/matmul")


def test_ranks_that_meet_in_one_order_come_to_their_end():
    sequences = {0: [PAIR, WORLD, OTHER], 1: [PAIR, WORLD, OTHER], 2: [LAST, WORLD], 3: [LAST, WORLD]}
    assert deadlock(sequences) == ""


def test_two_ranks_in_different_order_wait_for_each_other():
    said = deadlock({0: [PAIR, OTHER], 1: [OTHER, PAIR]})
    assert said == (
        "rank 0, collective 1 of 2, AllReduce sum 8 float32 of [0, 1] in layer/matmul, "
        "waits for rank 1 (at AllGather 8 float32); "
        "rank 1, collective 1 of 2, AllGather 8 float32 of [0, 1] in layer/gather, "
        "waits for rank 0 (at AllReduce sum 8 float32)"
    )


def test_a_rank_that_leaves_one_out_holds_up_all_that_need_it():
    said = deadlock({0: [WORLD], 1: [PAIR, WORLD], 2: [WORLD], 3: [WORLD]})
    assert "rank 1, collective 1 of 2" in said and "waits for rank 0 (at AllReduce sum scalar" in said
    assert "rank 3, collective 1 of 1" in said and "waits for rank 1 (at AllReduce sum 8 float32)" in said


def test_a_rank_that_has_ended_is_named():
    assert "waits for rank 1 (at its end)" in deadlock({0: [PAIR, PAIR], 1: [PAIR]})


def test_other_shapes_do_not_meet():
    larger = Meeting((0, 1), "AllReduce sum 16 float32")
    assert "waits for rank 1 (at AllReduce sum 16 float32)" in deadlock({0: [PAIR], 1: [larger]})


def test_a_rank_that_joins_a_group_it_is_not_of_is_named():
    said = deadlock({0: [PAIR], 1: [PAIR], 2: [PAIR]})
    assert said == (
        "rank 2, collective 1 of 1, AllReduce sum 8 float32 of [0, 1] in layer/matmul, is not of that group"
    )


def test_both_ends_of_a_transfer_must_agree_on_its_direction_and_micro_batch():
    sent = Meeting((0, 1), "8 float32, forward of micro-batch 1", ends=(0, 1))
    assert deadlock({0: [sent], 1: [sent]}) == ""
    other = Meeting((0, 1), "8 float32, forward of micro-batch 2", ends=(0, 1))
    said = deadlock({0: [sent], 1: [other]})
    assert "0 sends 1 8 float32, forward of micro-batch 1 of [0, 1], waits for rank 1" in said
    back = Meeting((0, 1), "8 float32, forward of micro-batch 1", ends=(1, 0))
    assert "waits for rank 1 (at 1 sends 0 8 float32" in deadlock({0: [sent], 1: [back]})


def test_a_cycle_of_three_pairs_is_found():
    pairs = {name: Meeting(name, "AllReduce sum 8 float32") for name in ((0, 1), (1, 2), (0, 2))}
    cycle = {
        0: [pairs[0, 1], pairs[0, 2]],
        1: [pairs[1, 2], pairs[0, 1]],
        2: [pairs[0, 2], pairs[1, 2]],
    }
    said = deadlock(cycle)
    assert [f"rank {rank}, collective 1 of 2" in said for rank in cycle] == [True] * 3
    cycle[2].reverse()
    assert deadlock(cycle) == ""
