""".ci/run installs the programs that are not there, all by one call; apt is a stand-in."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci" / "run"
PACKAGES = {"chromium": "chromium", "nginx": "nginx", "haproxy": "haproxy", "java": "default-jre-headless"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
@pytest.mark.parametrize("there", [(), ("java",), ("nginx", "haproxy"), tuple(PACKAGES)])
def test_packages_of_the_programs_that_are_missing_are_installed(tmp_path, there):
    for name in ("apt-get", *there):
        (tmp_path / name).write_text('#!/bin/sh\necho "$@"\n', "utf-8")
        (tmp_path / name).chmod(0o755)
    function = re.search(r"^install_packages\(\) \{\n.*?^\}\n", CI.read_text("utf-8"), re.M | re.S)[0]
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", f"{function}install_packages"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    missing = {PACKAGES[name] for name in PACKAGES if name not in there}
    calls = [line.split() for line in done.stdout.splitlines()]
    assert [words[0] for words in calls] == (["update", "install"] if missing else [])
    if missing:
        assert {word for word in calls[1][1:] if not word.startswith("-")} == missing
