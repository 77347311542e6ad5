"""isogloss: one representation of speech and text in many languages.

    import isogloss
    model = isogloss.load("path/to/model")
    print(model.transcribe("clip.ogg").text)
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.model.recogniser import load
    from isogloss.nn.transducer import transducer_loss

__version__ = version("isogloss")
__all__ = ["IsoglossError", "__version__", "load", "transducer_loss"]


def __getattr__(name: str) -> Any:
    """Import torch only when something needs it: `isogloss --help` must answer at once."""
    if name == "load":
        from isogloss.model.recogniser import load

        return load
    if name == "transducer_loss":
        from isogloss.nn.transducer import transducer_loss

        return transducer_loss
    raise AttributeError(f"module 'isogloss' has no attribute {name!r}")
