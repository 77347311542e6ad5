"""The data of a run, and what of them a stream gets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from isogloss.data.clips import Clips, joined
from isogloss.data.manifests import read_card
from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.training.recipe import Recipe
from isogloss.training.source import opened, read_data, read_texts, summary, transcribed, unspoken, without_held_out
from isogloss.training.streams import Stream


class Data:
    """All train and dev clips, and the text that nobody spoke.

    train, paired: all clips, and those with a transcript. texts: sentences as cuts without recordings. cards: of the
    corpora. summary: what is trained on and what is left out, in one line. fingerprint: of what is trained on.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe.data
        left_out: Counter[str] = Counter()
        folders = opened(recipe.data)
        self.train = read_data(recipe.data, "train", left_out, folders)
        self.dev = read_data(recipe.data, "dev", folders=folders)
        # Read now: the model's card quotes them after the last step.
        self.cards = [read_card(folder) for folder in recipe.data.folders]
        if any(objective.translates for stage in recipe.training for objective in stage.objectives):
            self.train = without_held_out(self.train, folders)
        self.paired = transcribed(self.train)
        self.summary = summary(self.train, self.paired, left_out)
        if not self.train:
            raise IsoglossError(f"No clip is left to train on: {self.summary}. Prepare the data with isogloss prepare.")
        # Text is read, and symbols are made of it, only where some stage learns from it.
        reads = any("text" in stage.seconds for stage in recipe.training)
        self.texts = read_texts(recipe.data, folders) if reads else Clips.of([])
        self.fingerprint = joined([self.train, self.texts]).fingerprint()
        self._check_weights()

    def stream(self, needs: Needs, stage: str) -> Stream:
        """The training clips that have all that is needed; raises IsoglossError, for a stage, where there are none."""
        pool = self.train if needs.audio else self.texts
        clips = pool.select(needs.met_by(pool))
        if not clips:
            anywhere = replace(needs, languages=None)
            wanted = needs if anywhere.met_by(pool).any() else anywhere
            raise IsoglossError(
                f'The stage "{stage}" needs {wanted.described()} and the data hold none; {self._mend(needs)}.'
            )
        return Stream(clips, needs)

    def dev_clips(self, needs: Needs) -> Clips:
        """The dev clips that serve; transcripts of clips where sentences without speech are wanted."""
        return self.dev.select(needs.met_by(self.dev))

    @property
    def corpora(self) -> dict[str, list[str]]:
        """The corpora with transcripts to learn from, by language."""
        found: dict[str, list[str]] = {}
        for source, tag in sorted(self.paired.seconds(), key=lambda pair: pair[::-1]):
            found.setdefault(tag, []).append(source)
        return found

    def _mend(self, needs: Needs) -> str:
        if needs.speaker:
            return "prepare them with a column that names the speakers"
        if needs.audio:
            return "prepare them with their transcripts"
        if unspoken(self.recipe.folders):
            return "all of it is held out, too long for data.longest, or in other languages than data.languages"
        return "prepare them with --text"

    def _check_weights(self) -> None:
        sources = self.train.sources() | self.texts.sources()
        for name in self.recipe.weights.keys() - sources:
            near, known = did_you_mean(name, sources), ", ".join(sorted(sources))
            raise IsoglossError(f'data.weights: no corpus is named "{name}".{near} There are: {known}.')
