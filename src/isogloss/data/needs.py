"""What an objective asks of the clips and sentences that it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isogloss.data.manifests import language_of, speaker_of, text_of
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


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

    def met_by(self, cut: MonoCut) -> bool:
        """Whether a clip, or a sentence as a cut without a recording, has all of it but the labels."""
        tag = language_of(cut)
        return (
            self.audio == (cut.recording is not None)
            and (not self.text or bool(normalise(text_of(cut) or "", tag)))
            and (not self.speaker or speaker_of(cut) is not None)
            and (not self.language or tag != "und")
            and (self.languages is None or tag in self.languages)
        )

    def described(self) -> str:
        """In words: `transcribed speech with known speakers`."""
        what = ("transcribed speech" if self.text else "speech") if self.audio else "unspoken text"
        known = [f"{name} known" for name in ("speaker", "language") if getattr(self, name)]
        named = [f"in {', '.join(sorted(self.languages)) or 'no language'}"] if self.languages is not None else []
        labelled = [f"labels {', '.join(sorted(self.labels))}"] if self.labels else []
        return ", ".join([what, *known, *named, *labelled])
