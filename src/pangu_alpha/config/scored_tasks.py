"""Which evaluation tasks a training run scores, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import PathText, build, read_yaml, validate


@dataclass(frozen=True)
class TasksConfig:
    """Tasks that are scored every so many steps with the weights of that step.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    data: PathText = option(REQUIRED, "folder with the published files of the tasks", metavar="DIR")
    names: tuple[str, ...] = option(REQUIRED, "tasks, whose candidates are compared; `all` is not allowed")
    every: int = option(1000, "steps between two scorings; the last step always has one", at_least=1)
    limit: int | None = option(100, "items of each task, drawn by their ids; null takes all", at_least=1)
    batch_size: int = option(8, "texts computed together", at_least=1)

    def __post_init__(self) -> None:
        validate(self)

    @classmethod
    def of_file(cls, path: str) -> TasksConfig:
        """Reads the keys from a YAML file.

        Raises:
            ConfigError: Lists every problem of the file.
        """
        return build(cls, read_yaml(path))

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.names:
            yield "names: name at least one task; `evaluate.py list` shows them"
