"""A standalone Spark cluster on loopback: a master and two workers, processes of their own.

pip's pyspark has no start-master; `spark-class` starts the same classes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

CORES = 1  # of each worker


def missing() -> str:
    """Why Spark cannot run here; empty if it can."""
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        return "Spark needs Java, and there is none"
    try:
        import pyspark  # noqa: F401
    except ImportError:
        return "pyspark, of the extra spark, is not installed"
    return ""


class Cluster:
    """Starts the processes, each the first of a process group; `address` is the master's."""

    def __init__(self, folder: Path) -> None:
        import pyspark

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.home = Path(pyspark.__file__).parent
        self.processes: dict[str, subprocess.Popen] = {}
        self.port = free_port()
        self.address = f"spark://127.0.0.1:{self.port}"
        ports = ["--port", str(self.port), "--webui-port", str(free_port())]
        self._start("master", "master.Master", *ports)
        self._wait_for("master", "I have been elected leader")
        for number in (1, 2):
            self.start_worker(number)

    def start_worker(self, number: int) -> None:
        """Starts a worker, or starts it anew."""
        folder = self.folder / f"worker{number}"
        words = ["--webui-port", str(free_port()), "--cores", str(CORES), "--memory", "1g"]
        self._start(f"worker{number}", "worker.Worker", *words, "--work-dir", str(folder), self.address)
        self._wait_for(f"worker{number}", "Successfully registered with master")

    def _start(self, name: str, program: str, *words: str) -> None:
        environment = {**os.environ, "SPARK_HOME": str(self.home), "SPARK_LOCAL_IP": "127.0.0.1",
                       "SPARK_DAEMON_MEMORY": "256m", "PYSPARK_PYTHON": sys.executable}  # fmt: skip
        command = [self.home / "bin/spark-class", f"org.apache.spark.deploy.{program}", "--host", "127.0.0.1"]
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [*command, *words], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _wait_for(self, name: str, line: str) -> None:
        end = time.monotonic() + 120
        while line not in (text := (self.folder / f"{name}.log").read_text()):
            assert self.processes[name].poll() is None and time.monotonic() < end, text
            time.sleep(0.1)

    def executors(self) -> list[int]:
        """Process ids of the executors, which the workers have started."""
        workers = {self.processes[name].pid for name in self.processes if name != "master"}
        return [pid for pid, parent, line in running() if parent in workers and "CoarseGrained" in line]

    def kill(self, name: str) -> None:
        """Kills a worker with all that it has started."""
        process = self.processes[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Kills all processes."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def running() -> list[tuple[int, int, str]]:
    """Process id, parent's id and command line of every process."""
    found = []
    for entry in (each for each in Path("/proc").iterdir() if each.name.isdecimal()):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, ValueError, IndexError):
            continue
        found.append((int(entry.name), parent, line))
    return found


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
