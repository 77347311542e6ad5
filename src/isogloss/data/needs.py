"""What an objective asks of the clips and sentences that it learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isogloss.data.clips import Clips, Mask


@dataclass(frozen=True)
class Needs:
    """What must be known of a clip.

    audio, text: without audio, sentences that nobody spoke. language: one that is known. languages: only these; None
    is any. labels: names of labels (one number a frame) that a stage has fitted. views: of the same clip, each with a
    speed and distortions of its own.
    """

    audio: bool = True
    text: bool = False
    speaker: bool = False
    language: bool = False
    languages: frozenset[str] | None = None
    labels: frozenset[str] = frozenset()
    views: int = 1

    @property
    def stream(self) -> str:
        """The stream of a stage that such clips come from unless another one is named."""
        if not self.audio:
            return "text"
        return "paired" if self.text else "speech"

    def __or__(self, other: Needs) -> Needs:
        """What serves both."""
        limits = [known for known in (self.languages, other.languages) if known is not None]
        return Needs(
            audio=self.audio or other.audio,
            text=self.text or other.text,
            speaker=self.speaker or other.speaker,
            language=self.language or other.language,
            languages=frozenset.intersection(*limits) if limits else None,
            labels=self.labels | other.labels,
            views=max(self.views, other.views),
        )

    def met_by(self, clips: Clips) -> Mask:
        """(N,) which clips, or sentences as cuts without recordings, have all of it but the labels."""
        met = np.ones(len(clips), dtype=bool)
        if self.text:
            met &= clips.said != 0
        if self.speaker:
            met &= clips.named
        if self.language:
            met &= clips.of_languages(lambda tag: tag != "und")
        if (wanted := self.languages) is not None:
            met &= clips.of_languages(lambda tag: tag in wanted)
        return met

    def described(self) -> str:
        """In words: `transcribed speech with known speakers`."""
        what = ("transcribed speech" if self.text else "speech") if self.audio else "unspoken text"
        known = [f"{name} known" for name in ("speaker", "language") if getattr(self, name)]
        named = [f"in {', '.join(sorted(self.languages)) or 'no language'}"] if self.languages is not None else []
        labelled = [f"labels {', '.join(sorted(self.labels))}"] if self.labels else []
        return ", ".join([what, *known, *named, *labelled])
