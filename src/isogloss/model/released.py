"""The released model: a data package of its own, isogloss-model, in the folder `model` of the repository."""

from importlib.util import find_spec
from pathlib import Path

from isogloss.errors import IsoglossError

RELEASED = "released"
"""Its name where a model folder is asked for."""
PACKAGE = "isogloss_model"


def find_released() -> Path | None:
    """The folder of the released model, None where it is not installed."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "model"


def released_folder() -> Path:
    """The folder of the released model; raises IsoglossError where it is not installed."""
    found = find_released()
    if found is None:
        raise IsoglossError(
            "No model was given and the released one is not installed; give --model FOLDER, or install it from a copy "
            "of the repository: pip install ./model"
        )
    return found
