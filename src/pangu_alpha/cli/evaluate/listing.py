"""`evaluate.py list`: the tasks, their templates, and whether their files are there."""

from __future__ import annotations

import argparse
from pathlib import Path

from pangu_alpha.cli.options import path_text, user_path
from pangu_alpha.evaluation.tasks.catalog import find_file, load_tasks
from pangu_alpha.evaluation.tasks.task import EvaluationTask


def run(options: argparse.Namespace) -> int:
    """Prints a line for each task; raises ValueError for a task file that is wrong."""
    tasks = load_tasks(options.task_file)
    width = max(map(len, tasks)) + 2
    for name, task in tasks.items():
        print(f"{name:{width}}{task.title}; {task.family}; templates {', '.join(task.templates)}")
        print(f"{'':{width}}{_files(task, options.data)}")
    return 0


def _files(task: EvaluationTask, data: Path | None) -> str:
    found = None if data is None else find_file(data, task.files)
    if found is not None:
        return str(found)
    source = f", published at {task.where}, licence: {task.licence}" if task.where else ""
    return f"looked for: {' or '.join(task.files)}{source}"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command's options."""
    parser = commands.add_parser("list", help="list the tasks and where their files are looked for")
    parser.add_argument("--data", type=user_path, metavar="DIR", help="folder to look into")
    parser.add_argument("--task-file", action="append", default=[], type=path_text, metavar="YAML",
        help="further tasks; may be repeated")  # fmt: skip


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.evaluate list")
