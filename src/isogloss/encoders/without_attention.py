"""What blocks have in common that do not attend to other frames: recurrent layers, causal convolutions."""

from typing import ClassVar

from isogloss.config import Config


class WithoutAttention(Config):
    """Blocks that take inputs of any width and audio as it arrives; see `blocks` for what each name means."""

    feeds: ClassVar[int] = 0
    attends: ClassVar[bool] = False
    layer_drop: ClassVar[float] = 0.0
    alike: ClassVar[bool] = True
    any_width: ClassVar[bool] = True
    final_norm: ClassVar[bool] = False
    cannot_stream: ClassVar[str | None] = None

    def entry(self) -> None:
        """What is done before the first block: nothing."""

    def bias_of_positions(self) -> None:
        """What all blocks add to the scores of their attention: they have none."""
