"""What a test gets of the command line when it runs a verb in its own process (`run` in conftest.py)."""

from collections.abc import Callable

Outcome = tuple[int, str, str]
"""Exit code, standard output, standard error."""
Run = Callable[..., Outcome]
