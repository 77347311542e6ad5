"""What can be measured: one file a task, known by being here.

Importing this package imports no task; a name on the command line is looked up among the files and nowhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from isogloss.errors import IsoglossError, did_you_mean

if TYPE_CHECKING:
    from isogloss.evaluation.task import Task


def task_names() -> list[str]:
    """The names of all tasks, in alphabetic order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_task(name: str) -> type[Task]:
    """The task in the file of this name; raises IsoglossError for a name that is no task's."""
    from isogloss.evaluation.task import Task

    known = task_names()
    if name not in known:
        raise IsoglossError(f'There is no task "{name}".{did_you_mean(name, known)} Tasks: {", ".join(known)}.')
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise IsoglossError(f"{module.__file__} must define one task, and defines {len(found)}.")
    return found[0]
