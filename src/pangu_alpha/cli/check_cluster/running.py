"""Runs the checks on the first node, which leads: starts each measurement, judges it, and keeps the result.

A check that fails is recorded, and the next one runs. Only a signal ends the run early.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pangu_alpha.cli.check_cluster.orders import Leader, Order
from pangu_alpha.cli.launch.attempts import new_folder, wait_for_port
from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster_check.check import Check, Evidence, Finding, Measurement, Result, Verdict, judged
from pangu_alpha.cluster_check.records import missing_ranks, read_records, write_result
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.files.reading import ReadError
from pangu_alpha.files.shown import shown
from pangu_alpha.launcher.commands import Job, Node, commands
from pangu_alpha.launcher.watch import Bulletin, Console, Failure, last_lines, watch
from pangu_alpha.launcher.workers import MsrunWorkers, OwnWorkers, log_of
from pangu_alpha.processes.signals import Signals

GRACE = 5.0  # seconds that processes get after a signal; they have nothing to save
LATE = 124  # exit code of a measurement that the time limit ended, as timeout(1) gives it
_LEAVING = (
    60.0  # seconds that records of other nodes may take to appear once this node's processes have ended
)
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class Machines:
    """What every start of processes needs.

    Args:
        job: A start of all ranks on all nodes; its program is that of a rank, without its words.
        here: The node that this process runs on.
        out: Folder of the results, which all nodes share.
        cores: Number of this node's cores.
    """

    job: Job
    here: Node
    setup: Setup
    out: Path
    cores: int

    def job_of(self, order: Order, measurement: Measurement) -> Job:
        """The start of one measurement's processes."""
        device = self.setup.device if measurement.device == "checked" else measurement.device or "none"
        words = (str(self.out), order.check, order.measurement, order.folder, device)
        joined = measurement.ranks == "all" and self.job.size > 1
        nodes = self.job.nodes
        if measurement.ranks == "one":
            nodes = (replace(nodes[0], workers=nodes[0].workers[:1]),)
        return replace(
            self.job,
            program=(*self.job.program, *words, *(() if joined else ("{rank}",))),
            nodes=nodes,
            environment={**self.job.environment, **measurement.environment},
            start=self.job.start if joined else "alone",
            master=(self.job.master[0], order.port),
        )


class _Quiet(Console):
    """Shows nothing of a worker's log; the report names the log of a rank that fails."""

    def update(self) -> None:
        """Does nothing."""


class TimeLimit:
    """What ends a measurement from outside: news of another node, or the end of its time.

    Args:
        news: The other nodes' failures; None if there are no other nodes.
        late: What is reported when the time is over.
    """

    def __init__(self, seconds: float, late: Failure, news: Bulletin | None = None) -> None:
        self._deadline = time.monotonic() + seconds
        self._late = late
        self._news = news

    def read(self) -> Failure | None:
        """Returns why the measurement must end, or None."""
        found = self._news.read() if self._news is not None else None
        return self._late if found is None and time.monotonic() > self._deadline else found

    def write(self, failure: Failure) -> None:
        """Tells the other nodes that the measurement has failed."""
        if self._news is not None:
            self._news.write(failure)


def run_processes(
    machines: Machines, order: Order, measurement: Measurement, seconds: float, signals: Signals
) -> Failure | None:
    """Runs this node's processes of one measurement, in process groups of their own; none is left after it.

    Args:
        seconds: Time limit.

    Returns:
        What ended it early, or None.
    """
    job = machines.job_of(order, measurement)
    node = job.nodes[machines.here.place]
    logs = Path(order.folder) / f"node_{node.place}"
    logs.mkdir()
    if job.start == "msrun" and node.place == 0:
        wait_for_port(*job.master, given_up=lambda: signals.number != 0)
    started = commands(job, node, logs, machines.cores)
    workers: MsrunWorkers | OwnWorkers
    if job.start == "msrun":
        workers = MsrunWorkers(started[0], job.environment, logs, len(node.workers))
    else:
        workers = OwnWorkers(started, job.environment, logs)
    own = log_of(logs, node.ranks[0])
    late = Failure(None, LATE, node.name, str(own))
    news = Bulletin(Path(order.folder), logs) if len(job.nodes) > 1 else None
    limit = TimeLimit(seconds, late, news)
    return watch(workers, _Quiet(own, 0), signals, limit, node.name, logs, GRACE)


@dataclass
class _Outcome:
    """What came of the measurements of a check.

    Args:
        done: Those that have their records.
        stopped: By title, those that ended with an error, which no other one needed.
        notes: Figures about how processes ended.
        seconds: By name, the time that each took.
        ended: Why the check cannot be judged; None if it can.
    """

    done: list[Measurement] = field(default_factory=list)
    stopped: dict[str, Result] = field(default_factory=dict)
    notes: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ended: Result | None = None


@dataclass(frozen=True)
class Runner:
    """Runs checks one after another.

    Args:
        leader: Gives orders to the other nodes.
        report: Called after every check, with a line about it.
    """

    machines: Machines
    leader: Leader
    signals: Signals
    report: Callable[[str], None]

    def run(self, checks: Sequence[Check]) -> None:
        """Runs checks until all are done or a signal arrives."""
        for check in checks:
            if self.signals.number:
                return
            self.report(f"{check.name}: {check.shows} (about {self._expected(check):.0f} s)")
            began = time.monotonic()
            result = self._result(check)
            if self.signals.number:
                return
            result = replace(result, seconds=time.monotonic() - began)
            write_result(self.machines.out, result)
            self.report(_line(result))

    def _expected(self, check: Check) -> float:
        setup = self.machines.setup
        return check.seconds[setup.device] * len(check.measured(setup.size, setup.device))

    def _result(self, check: Check) -> Result:
        setup = self.machines.setup
        if (why := check.skipped(setup.size, vars(setup))) is not None:
            return Result(check.name, "skipped", why=why)
        out = self.machines.out
        folder = new_folder(out / "checks" / check.name)
        outcome = self._measure_all(check, folder)
        if outcome.ended is not None:
            return replace(outcome.ended, parts=outcome.seconds)
        names = {each.name: str((folder / each.name).relative_to(out)) for each in outcome.done}
        try:
            records = {
                each.name: read_records(out / names[each.name], self._ranks(each)) for each in outcome.done
            }
        except (ReadError, OSError) as error:
            why = f"a record cannot be read: {error}"
            return Result(check.name, "died", why=why, records=names, parts=outcome.seconds)
        evidence = Evidence(setup.device, check.bounds[setup.device], records)
        return replace(self._judged(check, evidence, outcome), records=names, parts=outcome.seconds)

    def _measure_all(self, check: Check, folder: Path) -> _Outcome:
        """Runs the measurements of a check, until one that others need ends with an error."""
        outcome = _Outcome()
        for each in check.measured(self.machines.setup.size, self.machines.setup.device):
            began = time.monotonic()
            failed = self._measure(check, each, folder / each.name, outcome.notes)
            outcome.seconds[each.name] = time.monotonic() - began
            if self.signals.number or (failed is not None and not each.independent):
                outcome.ended = failed or Result(check.name, "late", why="a signal")
                break
            if failed is None:
                outcome.done.append(each)
            else:
                outcome.stopped[each.title or each.name] = failed
        return outcome

    def _judged(self, check: Check, evidence: Evidence, outcome: _Outcome) -> Result:
        """The result of a check whose measurements have ended, some of them perhaps with an error."""
        findings = (
            *judged(check, evidence),
            *(Finding(name, each.why, "ends with a record", False) for name, each in outcome.stopped.items()),
            *check.left_out(self.machines.setup.size, evidence.device),
            *outcome.notes,
        )
        wrong = [each.what for each in findings if not each.passed]
        why = f"{len(wrong)} of {len(findings)} findings: {'; '.join(wrong[:3])}" if wrong else ""
        verdict: Verdict = "failed" if wrong else "passed"
        first = next(iter(outcome.stopped.values()), Result(check.name, verdict))
        return replace(first, findings=findings, why=why)

    def _ranks(self, measurement: Measurement) -> tuple[int, ...]:
        ranks = tuple(rank for node in self.machines.setup.nodes for rank in node)
        return ranks[:1] if measurement.ranks == "one" else tuple(sorted(ranks))

    def _measure(
        self, check: Check, measurement: Measurement, folder: Path, notes: list[Finding]
    ) -> Result | None:
        """Runs the processes of a measurement on all nodes; returns a result if it cannot be judged.

        Args:
            notes: Gets a figure if a process died as it left, after all had measured (MindSpore 2.9 on CPU
                sometimes does).
        """
        folder.mkdir()
        limit = check.limit(self.machines.setup.device)
        order = self.leader.order(check.name, measurement, str(folder))
        failure = run_processes(self.machines, order, measurement, limit, self.signals)
        ranks = self._ranks(measurement)
        if failure is None and not self.signals.number:
            self._wait(folder, ranks)
        missing = missing_ranks(folder, ranks)
        if self.signals.number or (failure is None and not missing):
            return None
        if failure is not None and failure.code != LATE and not missing:
            what = f"{measurement.name}: a process died as it left, after all had measured"
            notes.append(Finding(what, str(failure)))
            return None
        return self._stopped(check, measurement, failure, missing, limit)

    def _wait(self, folder: Path, ranks: tuple[int, ...]) -> None:
        deadline = time.monotonic() + _LEAVING
        while missing_ranks(folder, ranks) and time.monotonic() < deadline and not self.signals.number:
            time.sleep(_POLL)

    def _stopped(
        self,
        check: Check,
        measurement: Measurement,
        failure: Failure | None,
        missing: Sequence[int],
        limit: float,
    ) -> Result:
        setup = self.machines.setup
        hosts = ranges({setup.node_of(rank) for rank in missing})
        who = f"{_ranks(missing)} on node {hosts}" if missing else "no rank"
        log = tail = None
        if failure is None:
            why = f"{measurement.name}: {who} left no record that this node can see in {self.machines.out}"
        elif failure.code == LATE:
            why = f"{measurement.name}: ended after {limit:.0f} s; without a record: {who}"
        else:
            why = f"{measurement.name}: {failure}"
        if failure is not None:
            log, tail = Path(failure.log), last_lines(Path(failure.log))
        late = failure is None or failure.code == LATE
        return Result(check.name, "late" if late else "died", why=why, log=self._relative(log),
                      tail=tuple(map(shown, tail or ())))  # fmt: skip

    def _relative(self, log: Path | None) -> str:
        if log is None:
            return ""
        out = self.machines.out
        return str(log.relative_to(out)) if log.is_relative_to(out) else str(log)


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {ranges(ranks)}"


def _line(result: Result) -> str:
    """One line about a result, as the console shows it."""
    why = f": {shown(result.why)}" if result.why else ""
    return f"{result.check}: {result.verdict.upper()} in {result.seconds:.0f} s{why}"
