"""A planted fault of each kind makes its check fail, and good records pass; no device is needed."""

from __future__ import annotations

import pytest
from records_of import BY_NAME, failed, links, machine, npu_smi, overlap, plans, speed, startup, storage

from pangu_alpha.cluster_check.cases.overflow import OVERFLOWS, SCALE
from pangu_alpha.cluster_check.cases.overflow import STEPS as OVERFLOW_STEPS
from pangu_alpha.cluster_check.check import Evidence, Finding, judged
from pangu_alpha.cluster_check.judge.npu_smi import Npu, devices_of, version_of
from pangu_alpha.cluster_check.judge.overlap import hidden_share
from pangu_alpha.cluster_check.judge.runs import overflow, partitioned
from pangu_alpha.cluster_check.measure.planner import device_memory
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.cluster_check.training_run import STEPS
from pangu_alpha.files.writing import write_json

LIMITS = machine()["limits"]


def one_finding(name, records, device="CPU"):
    found = failed(name, records, device)
    assert len(found) == 1, found
    return found[0]


def judged_of(name, records, device="CPU"):
    return judged(BY_NAME[name], Evidence(device, BY_NAME[name].bounds[device], records))


def test_machines_that_are_alike_pass():
    assert not failed("environment", {"machine": [machine(), machine(host="node02")]}, "Ascend")


OTHER_MINDSPORE = {"mindspore": {"version": "2.8.0", "required": "~=2.9.0", "met": False}}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"python": "3.10.1"}, "on ranks 1: 3.10.1"),
        ({"ascend": {"driver": "24.1", "CANN": "8.5.0"}}, "on ranks 1: 8.5.0"),
        ({"processor": "x86_64"}, "on ranks 1: x86_64"),
        ({"limits": LIMITS | {"open files": 256}}, "256"),
        ({"limits": LIMITS | {"processes": 100}}, "100"),
        ({"limits": LIMITS | {"address space": 2**32}}, "4294967296"),
        ({"memory": 2e9}, "2.0"),
        ({"storage": storage(clock_offset=7.0)}, "6.99"),
        ({"storage": storage(bytes_per_second=1e6)}, "2.0"),
        ({"storage": storage(free=1e6)}, "0.0"),
        ({"storage": storage(lock=False)}, "not on ranks 1"),
        ({"storage": storage(rename=False)}, "not on ranks 1"),
        ({"storage": {"fault": "No space left on device: /shared"}}, "No space left on device"),
        ({"npu_smi": npu_smi(version="25.0")}, "on ranks 1: 25.0"),
        ({"place": {"device": 7}, "npu_smi": npu_smi("Warning")}, "rank 1: Warning"),
        ({"place": {"device": 7}, "npu_smi": npu_smi(used=59356)}, "0.906"),
        ({"place": {"device": 7}, "npu_smi": npu_smi(memory=32768)}, "on ranks 1: 32768"),
        ({"npu_smi": npu_smi(name="910B3")}, "on ranks 1: 910B3"),
    ],
)
def test_a_machine_that_differs_is_named(changes, said):
    finding = one_finding("environment", {"machine": [machine(), machine(**changes)]}, "Ascend")
    assert said in str(finding.value)


def test_the_first_rank_of_each_machine_tells_of_the_storage():
    slow = storage(bytes_per_second=40e6)
    machines = [machine(storage=slow), machine(storage=None), machine(storage=slow), machine(storage=None)]
    found = one_finding("environment", {"machine": machines}, "Ascend")
    assert found.value == 80.0 and "all machines together" in found.what
    assert not failed("environment", {"machine": [*machines, machine(storage=slow)]}, "Ascend")
    assert failed("environment", {"machine": [machine(storage=None)]}, "Ascend")[0].what == "records"


def test_devices_that_are_not_there_or_not_shown():
    absent = failed("environment", {"machine": [machine(), machine(place={"device": 8})]}, "Ascend")
    assert [each.value for each in absent] == [
        "device 8 of rank 1: /dev has 0-7",
        "not those of ranks 1",
    ]
    blind = failed("environment", {"machine": [machine(npu_smi="")] * 2}, "Ascend")
    assert [each.what for each in blind] == ["devices that npu-smi shows"]
    small = machine(npu_smi=npu_smi(used=900, memory=16384, count=1))
    found = failed("environment", {"machine": [small] * 2}, "Ascend")
    assert [each.what for each in found] == ["memory of a device, GB"]


@pytest.mark.parametrize("version", ["8.0.RC2", "7.6.0.1.220:8.20.0", ""])
def test_a_cann_that_mindspore_does_not_know(version):
    other = machine(ascend={"driver": "24.1", "CANN": version})
    found = [each.what for each in failed("environment", {"machine": [other] * 2}, "Ascend")]
    assert "CANN's version" in found


ATLAS_A3 = """\
| npu-smi 25.2.0                   Version: 25.2.0                                               |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
| 4     Ascend910           | OK            | 211.3       43                0    / 0             |
| 0     8                   | 0000:8D:00.0  | 7           0    / 0          61609/ 65536         |
| 4     Ascend910           | Alarm         | -           44                0    / 0             |
| 1     9                   | 0000:8F:00.0  | 7           0    / 0          2886 / 65536         |
"""
ATLAS_910A = """\
| 3     910A                | OK            | 66.2        41                0    / 0             |
| 0                         | 0000:02:00.0  | 0           2133 / 15137      1    / 32768         |
"""


def test_npu_smi_of_other_families():
    assert devices_of(ATLAS_A3) == {
        8: Npu("Ascend910", "OK", 65536, 61609),
        9: Npu("Ascend910", "Alarm", 65536, 2886),
    }
    assert devices_of(ATLAS_910A) == {3: Npu("910A", "OK", 32768, 1)}
    assert (
        version_of(ATLAS_A3) == "25.2.0" and version_of("") == "" and devices_of("npu-smi: not found") == {}
    )


def test_the_memory_of_a_device_without_a_family():
    setup = Setup("Ascend", ((0, 1),), ((0, 1),))
    assert device_memory(setup, {"host_memory": 1e12}, [machine()]) == 65536 * 2**20
    with pytest.raises(ValueError, match="name the devices with --chip or --cluster"):
        device_memory(setup, {"host_memory": 1e12}, [])
    assert device_memory(Setup("CPU", ((0, 1),), ((0, 1),)), {"host_memory": 8e9}, []) == 4e9


def test_a_wrong_version_is_named_even_where_all_have_it():
    records = [machine(packages=OTHER_MINDSPORE)] * 2
    assert one_finding("environment", {"machine": records}).value == "2.8.0"


def test_a_rank_table_with_other_addresses_than_the_devices_have(tmp_path):
    path = tmp_path / "table.json"
    devices = [{"device_id": str(n), "device_ip": f"10.1.0.{n + 1}", "rank_id": str(n)} for n in range(2)]
    servers = [{"server_id": "10.0.0.1", "device": devices}]
    write_json(path, {"status": "completed", "version": "1.0", "server_count": "1", "server_list": servers})
    own = {"rank_table": str(path), "device_addresses": {"0": "10.1.0.1", "1": "10.1.0.2"}}
    assert not failed("environment", {"machine": [machine(**own)] * 2})
    swapped = own | {"device_addresses": {"0": "10.1.0.2", "1": "10.1.0.1"}}
    finding = one_finding("environment", {"machine": [machine(**swapped)] * 2})
    silent = own | {"device_addresses": {}}
    assert not failed("environment", {"machine": [machine(**silent)] * 2})  # one server does not need them
    assert "rank 0: 10.0.0.1 device 0 has 10.1.0.2, the table says 10.1.0.1" in finding.value


def test_devices_of_several_servers_that_do_not_tell_their_address(tmp_path):
    path = tmp_path / "table.json"
    servers = [
        {
            "server_id": f"10.0.0.{n}",
            "device": [{"device_id": "0", "device_ip": f"10.1.0.{n}", "rank_id": str(n)}],
        }
        for n in range(2)
    ]
    write_json(path, {"status": "completed", "version": "1.0", "server_count": "2", "server_list": servers})
    known = machine(rank_table=str(path), device_addresses={"0": "10.1.0.0"})
    finding = one_finding("environment", {"machine": [known, known | {"device_addresses": {}}]})
    assert finding.value.startswith("1 of 2 devices told their address")


def joined(**changes):
    return {"wrong_words": 0, "fault": "", "groups": ["dp: 1 group of 2"], "size": 2} | changes


def test_ranks_that_are_elsewhere_or_lose_bits():
    assert not failed("world", {"joined": [joined(), joined()]})
    fault = "ranks 0 and 1 both run on device 0 of node01"
    assert one_finding("world", {"joined": [joined(fault=fault)] * 2}).value == fault
    assert one_finding("world", {"joined": [joined(), joined(wrong_words=3)]}).value == 3
    assert one_finding("world", {"joined": [joined(), joined(size=1)]}).value == "1, 2"


def operator(samples, slopes=(0.5,), **more):
    return {"samples": samples, "scales": [2.0, 4.0], "slopes": list(slopes), **more}


PLAIN = operator([[1.0, 2.0], [3.0, -4.0]], numpy={"sample": [1.0, 2.0], "slopes": [0.5]})


def computed(*samples, plain=PLAIN, status=None):
    device = {"operators": {"gelu, small, float16": operator(list(samples))}, "status": status}
    return {"plain": [{"operators": {"gelu, small, float32": plain}}], "device": [device]}


def test_operators_within_rounding_pass():
    assert not failed("operators", computed([1.001, 2.0], [3.0, -4.01]))


@pytest.mark.parametrize(
    "samples, kind",
    [
        ([[1.01, 2.0], [3.0, -4.0]], "output"),
        ([[1.0, 2.0], [3.1, -4.0]], "gradient"),
        ([[None, 2.0], [3.0, -4.0]], "output"),  # not finite
    ],
)
def test_a_perturbed_operator(samples, kind):
    finding = one_finding("operators", computed(*samples))
    assert finding.what == f"gelu, float16: {kind} against the plain operator"


def test_a_plain_operator_that_is_wrong_itself():
    wrong = PLAIN | {"numpy": {"sample": [1.0, 2.1], "slopes": [0.5]}}
    assert "against NumPy, output" in one_finding("operators", computed([1, 2], [3, -4], plain=wrong)).what
    wrong = PLAIN | {"numpy": {"sample": [1.0, 2.0], "slopes": [0.6]}}
    finding = one_finding("operators", computed([1, 2], [3, -4], plain=wrong))
    assert "against NumPy, derivative" in finding.what


def test_an_operator_that_was_not_compared():
    records = computed([1, 2], [3, -4])
    records["plain"][0]["operators"]["affine, small, float32"] = PLAIN
    assert one_finding("operators", records).value == "affine, small and 0 more are missing"


@pytest.mark.parametrize("status", [{"clean": 1.0, "overflow": 1.0}, {"clean": 0.0, "overflow": 0.0}])
def test_a_register_that_does_not_tell_overflow(status):
    assert one_finding("operators", computed([1, 2], [3, -4], status=status)).what == "float status"
    good = {"clean": 0.0, "overflow": 8.0}
    assert not failed("operators", computed([1, 2], [3, -4], status=good))


def masks(**changes):
    return {
        "rate": 0.1,
        "elements": {"a": 10_000, "b": 10_000},
        "zeros": {"a": 0.102, "b": 0.099},
        "factors": {"a": [1.111], "b": [1.111]},
        "digests": {"a": "1", "b": "2"},
        "correlations": {"a / b": 0.01},
    } | changes


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"zeros": {"a": 0.13, "b": 0.1}}, "share of zeros"),
        ({"factors": {"a": [1.0], "b": [1.111]}}, "factors"),
        ({"correlations": {"a / b": 0.2}}, "largest correlation"),
        ({"digests": {"a": "1", "b": "3"}}, "masks, against"),
    ],
)
def test_dropout_of_another_kind(changes, what):
    assert not failed("dropout", dropped())
    assert one_finding("dropout", dropped(device=masks(**changes))).what.startswith(what)


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"zeros": {"a": 0.13, "b": 0.1}}, "share of zeros"),
        ({"factors": {"a": [1.0], "b": [1.111]}}, "factors"),
        ({"correlations": {"a / b": 1.0}}, "largest correlation"),
    ],
)
def test_a_stream_of_the_device_s_own_that_is_no_dropout(changes, what):
    found = one_finding("dropout", dropped(stream=masks(**changes)))
    assert found.what.startswith(f"device's own stream: {what}")


def test_ranks_that_draw_the_same_masks():
    records = dropped()
    records["stream"][1]["digests"]["b"] = records["stream"][0]["digests"]["a"]
    assert one_finding("dropout", records).value == "rank 0, a and rank 1, b are equal"


def dropped(device=None, stream=None):
    other = masks(digests={"a": "5", "b": "6"})
    return {"plain": [masks()], "device": [device or masks()], "stream": [stream or masks(), other]}


def test_dropout_that_is_off():
    off = masks(zeros={"a": 0.0, "b": 0.0}, factors={"a": [1.0], "b": [1.0]}, digests={"a": "0", "b": "0"},
                correlations={"a / b": 1.0})  # fmt: skip
    assert len(failed("dropout", dropped(device=off))) == 4


DIFFERENCES = {"logits": 1e-5, "losses": 1e-6, "gradients": 1e-5, "step losses": 1e-6, "weights": 1e-3}


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("value", [1.0, None])  # None is what JSON has for NaN
def test_a_network_that_is_another(name, value):
    def records(found):
        return {"device": [{"types": {"float32": found | {"steps": {"losses": [1.0, None]}}}}]}

    assert not failed("network", records(DIFFERENCES))
    assert one_finding("network", records(DIFFERENCES | {name: value})).what.startswith("float32: ")


def test_a_decoder_that_differs():
    def records(value):
        return {"device": [{"types": {"float16": {"difference": value, "same choice": 1.0}}}]}

    assert not failed("decoding", records(1e-3))
    assert one_finding("decoding", records(0.1)).value == 0.1
    assert failed("decoding", records(None))


def predicted(dtype="float32", **changes):
    answers = {"prompt": {"nats": [0.5, 2.0], "likeliest": True}}
    cpu = {"perplexity": 20.0, "nats": [3.0, 2.9], "answers": answers}
    device = {"tokens": [[1, 2]], "types": {dtype: cpu | changes}}
    return {"cpu": [{"tokens": [[1, 2]], "types": {"float32": cpu}}], "device": [device]}


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"perplexity": 20.1}, "float32: perplexity against"),
        ({"perplexity": None}, "float32: perplexity against"),
        ({"nats": [3.0, 2.8]}, "float32: -log p of a token"),
        ({"nats": [3.0]}, "float32: -log p of a token"),
        (
            {"answers": {"prompt": {"nats": [0.5, None], "likeliest": True}}},
            "float32: -log p of the prompts'",
        ),
    ],
)
def test_a_released_network_that_predicts_otherwise(changes, what):
    assert not failed("released", predicted()) and not failed(
        "released", predicted("float16", perplexity=20.1)
    )
    assert one_finding("released", predicted(**changes)).what.startswith(what)
    other = predicted()
    other["device"][0]["tokens"] = [[1, 3]]
    assert one_finding("released", other).what == "tokens of the text"


def curves(**changes):
    losses = [4.0 - 0.02 * step for step in range(STEPS)]
    steps = list(range(1, STEPS + 1))
    good = {"dtype": "float32", "killed_after": 0, "steps": steps, "losses": losses}
    records = {
        "cpu": [dict(good)],
        "device": [dict(good)],
        "killed": [good | {"killed_after": 30, "saved": 20}],
    }
    for name, change in changes.items():
        records[name] = [records[name][0] | change]
    return records


LOSSES = curves()["cpu"][0]["losses"]


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"killed": {"losses": [*LOSSES[:-1], LOSSES[-1] * (1 + 1e-12)]}}, "loss of the killed and resumed"),
        ({"killed": {"killed_after": 0}}, "killed after step"),
        ({"killed": {"saved": 0}}, "its newest checkpoint"),
        ({"killed": {"steps": [1, 1, *range(3, STEPS + 1)]}}, "steps of the killed run"),
    ],
)
def test_training_that_does_not_resume(changes, what):
    assert not failed("training", curves())
    assert one_finding("training", curves(**changes)).what.startswith(what)


def test_training_that_is_not_the_cpu_s():
    other = {"losses": [*LOSSES[:-1], LOSSES[-1] * 1.01]}
    assert "against the CPU's" in one_finding("training", curves(device=other, killed=other)).what
    flat = {"losses": [4.0] * STEPS}
    found = one_finding("training", curves(cpu=flat, device=flat, killed=flat))
    assert found.what == "last loss over the first one"


def test_ranks_that_train_another_thing_together():
    one, together = curves()["cpu"], [curves()["device"][0], {"dtype": "float32"}]
    assert not failed("parallel", {"one": one, "together": together})
    wrong = [together[0] | {"losses": [each + 0.1 for each in LOSSES]}, together[1]]
    assert "on 2 ranks against one" in one_finding("parallel", {"one": one, "together": wrong}).what


GOOD_PLAN = {kind: {"value": 1e-7, "where": "step 3, rank 1"} for kind in partitioned.KINDS}
GOOD_PLAN |= {kind: {"value": 0.0, "where": ""} for kind in ("skip", "padding")}


def planned(**changes):
    found = {
        "dtype": "float32",
        "by": "Engine",
        "plan": "tp 2",
        "losses": [4.0, None],
        "differences": GOOD_PLAN | changes,
    }
    return {"graphs": [{}], "one": [{}], "tp2": [found, {}]}


@pytest.mark.parametrize(
    "kind, value, units",
    [
        ("weight", 2e-4, 2.0),
        ("skip", 1.0, "skip: 1, must be 0"),
        ("gradient", None, "gradient: not finite"),
        ("padding", 1e-9, "padding: 1e-09, must be 0"),
    ],
)
def test_a_plan_that_computes_another_thing(kind, value, units):
    assert not failed("partitioned", planned())
    found = one_finding("partitioned", planned(**{kind: {"value": value, "where": "step 2, rank 1"}}))
    assert found.what.startswith("tp2: largest difference") and found.value == units


def test_a_plan_of_which_something_was_not_compared():
    records = planned()
    del records["tp2"][0]["differences"]["replica"]
    assert one_finding("partitioned", records).value == "nothing compared of replica"
    assert one_finding("partitioned", {"one": [{}]}).what == "plans that were measured"


def overflowed(skipped=OVERFLOWS, digest="a", factor=SCALE.factor):
    """A rank's record, with the scales of a guard that sees these overflows."""
    scales = overflow.schedule(SCALE.initial, factor, SCALE.window, skipped, OVERFLOW_STEPS)
    steps = [
        {"scale": scale, "applied": step not in skipped, "finite": step not in skipped,
         "changed": step not in skipped}
        for step, scale in enumerate(scales)
    ]  # fmt: skip
    return {"steps": steps, "digest": digest, "copies": True}


def test_the_schedule_of_the_loss_scale():
    found = overflow.schedule(2.0, 4.0, 2, (0, 3), 7)
    assert found == [2.0, 1.0, 1.0, 4.0, 1.0, 1.0, 4.0]  # never below 1; the window begins anew


def test_an_overflow_that_one_rank_does_not_hear_of():
    assert not failed("overflow", {"together": [overflowed(), overflowed()]})
    found = failed("overflow", {"together": [overflowed(), overflowed({1: 0, 2: 0}, "b")]})
    assert len(found) == 5 and found[0].value == "rank 1: 1, 2"


def test_a_skipped_step_that_changed_a_weight():
    record = overflowed()
    record["steps"][2]["changed"] = True
    assert (
        one_finding("overflow", {"together": [record]}).what
        == "together: steps that changed weights or moments"
    )


def test_a_loss_scale_that_leaves_its_schedule():
    found = one_finding("overflow", {"together": [overflowed(factor=2.0)]})
    assert found.what == "together: loss scales" and found.value.startswith("rank 0: 1024, 1024, 512, 256")


def resharded(**changes):
    def run(first, last, **more):
        steps = list(range(first, last + 1))
        losses = [4.0 - 0.1 * step for step in steps]
        return [{"dtype": "float32", "steps": steps, "losses": losses} | more]

    records = {"whole": run(1, 12), "saved": run(1, 6)}
    for name in ("other_plan", "one_device"):
        records[name] = run(7, 12, weights=1e-6, tensor="t")
    records["other_plan"] = [records["other_plan"][0] | changes]
    return records


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"losses": [3.3, 3.2, 3.1, 3.0, 2.9, 2.801]}, "other plan: loss against the whole run"),
        ({"weights": 0.1}, "other plan: last weights"),
        ({"weights": None}, "other plan: last weights"),
        ({"steps": [1, 2, 3, 4, 5, 6]}, "other plan: steps after the change"),  # it began anew
    ],
)
def test_a_run_that_does_not_go_on_after_a_reshard(changes, what):
    assert not failed("reshard", resharded())
    assert one_finding("reshard", resharded(**changes)).what.startswith(what)


def test_slow_devices():
    assert not failed("speed", {"device": [speed()]})
    found = failed("speed", {"device": [speed(products={"1024": 5.0}, nothing=0.2)]})
    assert [each.what for each in found] == [
        "best product, GFLOP/s",
        "a call that has almost nothing to do, s",
    ]
    slow = speed(copies={str(1 << 20): 1e-4, str(1 << 25): 1.0})  # the small ones are still fast
    assert one_finding("speed", {"device": [slow]}).what.startswith("memory with the largest")


GOOD_LINK = {1024: 1e-3, 1 << 22: 0.01}


@pytest.mark.parametrize(
    "slow, number",
    [
        ({1024: 1e-3, 1 << 22: 0.1}, 1),  # one link is ten times slower than its like
        ({1024: 0.5, 1 << 22: 0.5}, 2),  # each call is delayed
    ],
)
def test_a_slow_link(slow, number):
    assert not failed("links", {"joined": links("pair", [GOOD_LINK] * 4)})
    found = failed("links", {"joined": links("pair", [GOOD_LINK, GOOD_LINK, slow, GOOD_LINK])})
    assert len(found) == number and "slowest group (ranks 2-3)" in found[-1].what


def test_ranks_of_one_group_are_not_compared_with_each_other():
    slower = GOOD_LINK | {1 << 22: 0.2}
    assert not failed("links", {"joined": links("server", [GOOD_LINK, slower])})
    found = judged_of("links", {"joined": links("server", [GOOD_LINK, slower])})
    assert not [each for each in found if "slowest group (" in each.what]
    assert Finding("AlltoAll", "not measured: no such kernel") in found


def test_groups_that_lack_a_rank():
    records = links("pair", [GOOD_LINK] * 4)
    records[3]["groups"]["pair"] = [0, 1]
    assert "do not hold every rank once" in one_finding("links", {"joined": records}).value


def test_a_device_that_is_slower_with_both_at_once():
    assert not failed("overlap", {"joined": [overlap()] * 2})
    assert hidden_share([overlap()]) == pytest.approx(0.5) and hidden_share([overlap(both=0.07)]) == 0.0
    found = one_finding("overlap", {"joined": [overlap(both=0.12)] * 2})
    assert found.value == pytest.approx(2.0) and found.what.startswith("both at the same time against")
    assert one_finding("overlap", {"joined": [overlap(both=0.07)] * 2}, "Ascend").value > 1.1


@pytest.mark.parametrize(
    "changes, what",
    [({"started": 70.0}, "warm: until the device is in use, s"), ({"first": 130.0}, "warm: first step, s")],
)
def test_a_slow_start(changes, what):
    assert not failed("startup", {"cold": [startup()], "warm": [startup()]})
    assert one_finding("startup", {"cold": [startup()], "warm": [startup(**changes)]}).what == what


def predicted_steps(**changes):
    return plans(predicted=plans()["predicted"] | changes)


@pytest.mark.parametrize(
    "record, what",
    [
        (
            predicted_steps(parts=[0.1, 0.4, 0.2]),
            "products, memory and links: rank correlation",
        ),  # another order
        (predicted_steps(parts=[0.02, 0.03, 0.06]), "products, memory and links: factor"),
        (predicted_steps(**{"left out": [0.3, 0.6, 1.2]}), "other plans' steps: factor"),
        (predicted_steps(**{"left out": [0.19, 0.1, 0.4]}), "other plans' steps: rank correlation"),
    ],
)
def test_plans_that_the_planner_does_not_know(record, what):
    assert not failed("plans", {"predicted": [plans()]})
    assert what in one_finding("plans", {"predicted": [record]}).what


def test_too_few_plans_to_be_ordered():
    few = {name: each[:2] for name, each in plans()["predicted"].items()}
    record = plans(cases=["a", "b"], measured=[0.1, 0.2], spread=[0.0, 0.0], predicted=few)
    assert one_finding("plans", {"predicted": [record]}).what == "plans that were measured"


def test_a_planner_without_a_plan():
    plan = {"dp": 2, "tp": 1, "pp": 1, "micro_batches": 1}
    verdicts = {"speed": "passed", "links": "failed"}
    record = {
        "model": "tiny",
        "plans": {"measured": [{"plan": plan, "seconds": 0.1}]},
        "verdicts": verdicts,
    }
    assert not failed("planner", {"search": [record]})
    assert one_finding("planner", {"search": [record | {"plans": {"measured": []}}]}).value == 0


@pytest.mark.parametrize("name", BY_NAME)
def test_records_of_another_form_do_not_pass(name):
    measurements = BY_NAME[name].measurements
    assert failed(name, {each.name: [{}] for each in measurements})
    assert failed(name, {})
