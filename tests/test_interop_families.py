"""Every architecture of transformers: all hidden states and CTC's logits of a random twin, and the twin again.

Padded batches are compared where the original does not look at the padding. Tiny twins as `transformers` writes them,
no parameter of which is as it was initialised.
"""

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

from isogloss.errors import IsoglossError
from isogloss.interop.exporting import Exported, export_transformers
from isogloss.interop.families import FAMILIES
from isogloss.interop.importing import Imported, import_model
from isogloss.model.folder import load_model
from isogloss.sequence import Sequence
from small_models import sound

transformers = pytest.importorskip("transformers")

LAYERS = 3
VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "A": 7, "'": 8}
LETTERS = [0, 3, 4, 5, 6, 7, 8]
"""Without the marks of beginning and end."""
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 128,
    "vocab_size": len(VOCABULARY),
    "layerdrop": 0.0,
}
WAVEFORM = SIZES | {"conv_dim": [12] * 7}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
CONFORMER = {"hidden_act": "swish", "conv_depthwise_kernel_size": 5}


@dataclass(frozen=True)
class Case:
    """An architecture and its sizes.

    padded: whether the original's states do not depend on the padding. tolerance: of states; those from log-mel
    begin with its logarithms in another precision. unused: tensors that the original has and does not use.
    """

    name: str
    title: str
    config: dict[str, Any]
    padded: bool = True
    tolerance: float = 1e-4
    unused: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.name


DATA2VEC = WAVEFORM | {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7, "num_conv_pos_embedding_groups": 4}
W2V_CONFORMER = WAVEFORM | CONFORMER | {"feat_extract_norm": "layer", "conv_bias": True}
CASES = [
    Case("wav2vec2-base", "Wav2Vec2", WAVEFORM | POSITIONS, padded=False),
    Case("wav2vec2-large", "Wav2Vec2", WAVEFORM | POSITIONS | LARGE),
    Case("hubert-base", "Hubert", WAVEFORM | POSITIONS, padded=False),
    Case("hubert-large", "Hubert", WAVEFORM | POSITIONS | LARGE | {"feat_proj_layer_norm": False}),
    Case("data2vec-audio", "Data2VecAudio", DATA2VEC, padded=False),
    Case("wavlm-base", "WavLM", WAVEFORM | POSITIONS, padded=False),
    Case("wavlm-large", "WavLM", WAVEFORM | POSITIONS | LARGE | {"num_buckets": 16, "max_bucket_distance": 40}),
    *[
        Case(
            f"wav2vec2-conformer-{kind}",
            "Wav2Vec2Conformer",
            W2V_CONFORMER | {"position_embeddings_type": kind},
            padded=False,
            unused=("wav2vec2_conformer.encoder.pos_conv_embed.conv.",),
        )
        for kind in ("relative", "rotary")
    ],
    *[
        Case(
            f"wav2vec2-bert-{kind}",
            "Wav2Vec2Bert",
            SIZES | CONFORMER | {"position_embeddings_type": kind, "left_max_position_embeddings": 7},
            tolerance=3e-4,
        )
        for kind in ("relative_key", "relative", "rotary")
    ],
]


def saved(case: Case, folder: Path) -> tuple[Any, Any]:
    """A twin and what prepares audio for it, written to a folder as their libraries do."""
    torch.manual_seed(0)
    model = getattr(transformers, f"{case.title}ForCTC")(getattr(transformers, f"{case.title}Config")(**case.config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(0.2 * torch.rand_like(buffer))
    model.eval().save_pretrained(folder)
    if case.title == "Wav2Vec2Bert":
        prepare = transformers.SeamlessM4TFeatureExtractor()
    else:
        large = case.config.get("feat_extract_norm") == "layer"
        prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=large, return_attention_mask=case.padded)
    prepare.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    return model, prepare


@dataclass(frozen=True)
class Trip:
    """A twin, what prepares audio for it, and its folders: as theirs, as ours, and exported again."""

    case: Case
    kind: str
    theirs: Any
    prepare: Any
    imported: Imported
    exported: Exported
    folder: Path

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(self.folder / name / "model.safetensors")


@pytest.fixture(scope="module", params=CASES, ids=str)
def trip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    case, folder = request.param, tmp_path_factory.mktemp("trip")
    theirs, prepare = saved(case, folder / "theirs")
    imported = import_model(f"hf:{folder / 'theirs'}", folder / "ours")
    kind = json.loads((folder / "theirs/config.json").read_text())["model_type"]
    exported = export_transformers(folder / "ours", folder / "back", kind)
    return Trip(case, kind, theirs, prepare, imported, exported, folder)


@torch.no_grad()
def test_states_and_logits_are_those_of_transformers(trip: Trip) -> None:
    assert trip.imported.difference is not None and trip.imported.difference < 3e-5
    model = trip.imported.model
    assert model.frame_seconds == 0.02 and model.tokenizer is not None
    assert model.tokenizer.decode(model.tokenizer.encode("tea at' é")) == "tea at' �"
    long, short = sound(2), sound(1.31, seed=1)
    for clips in [[long], [short], *([[long, short]] if trip.case.padded else [])]:
        inputs = trip.prepare(clips, sampling_rate=16000, return_tensors="pt", padding=True)
        expected = trip.theirs(**inputs, output_hidden_states=True)
        batch = Sequence.from_list([torch.from_numpy(clip) for clip in clips])
        encoded = model.encode(model.features(batch), tuple(range(LAYERS + 1)))
        pairs = [(encoded.layers[number], expected.hidden_states[number]) for number in range(LAYERS + 1)]
        pairs.append((model.ctc_head()(encoded.final), expected.logits[..., LETTERS].log_softmax(dim=-1)))
        for ours, theirs in pairs:
            for row, other in zip(ours.unpad(), theirs, strict=True):
                assert_close(row, other[: len(row)], rtol=0, atol=trip.case.tolerance)


@torch.no_grad()
def test_the_round_trip_gives_the_same_tensors_and_states(trip: Trip) -> None:
    exported = trip.exported
    assert (exported.kind, exported.loader, exported.left_out) == (trip.kind, f"{trip.case.title}ForCTC", [])
    before, after = trip.weights("theirs"), trip.weights("back")
    for name in ("lm_head.weight", "lm_head.bias"):
        assert torch.equal(before.pop(name)[LETTERS], after.pop(name))
    before = {name: value for name, value in before.items() if not name.endswith("masked_spec_embed")}
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value) or name.startswith(trip.case.unused)
    back, report = getattr(transformers, exported.loader).from_pretrained(
        trip.folder / "back", output_loading_info=True
    )
    assert not any(report.values())
    reader = transformers.AutoProcessor.from_pretrained(trip.folder / "back")
    assert type(reader).__name__ == FAMILIES[trip.kind].reader
    inputs = trip.prepare(sound(1), sampling_rate=16000, return_tensors="pt")
    again = reader(sound(1), sampling_rate=16000, return_tensors="pt")
    assert_close(back(**again).logits, trip.theirs(**inputs).logits[..., LETTERS], rtol=0, atol=1e-5)


def test_the_first_architecture_that_fits_is_the_one_it_came_from(trip: Trip) -> None:
    """But for HuBERT's with a norm before its projection, which is wav2vec 2.0's."""
    config = trip.imported.model.config
    kinds = [family.kind for family in FAMILIES.values() if not family.differences(config)]
    assert trip.kind in kinds and (kinds[0] == trip.kind or trip.case.name == "hubert-base")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("data2vec-audio", {"conv_pos_kernel_size": None}, "config.json of a data2vec-audio: "),
        ("wavlm-base", {"intermediate_size": 100}, "intermediate_size: 100, and only 128 can be imported."),
        ("wavlm-base", {"add_adapter": True}, "add_adapter: True, and only False can be imported."),
        ("wav2vec2-conformer-relative", {"hidden_act": "gelu"}, "hidden_act: gelu, and only swish can be imported."),
        (
            "wav2vec2-conformer-relative",
            {"position_embeddings_type": "alibi"},
            "position_embeddings_type: alibi, and only relative and rotary and None can be imported.",
        ),
        ("wav2vec2-bert-relative", {"add_adapter": True}, "add_adapter: True, and only False can be imported."),
        ("wav2vec2-large", {"conv_dim": [12] * 6 + [16]}, "conv_dim: [12, 12, 12, 12, 12, 12, 16], and only [12, "),
        ("wav2vec2-large", {"num_hidden_layers": 2}, "The weights hold besides encoder.stack.blocks.2."),
        ("wav2vec2-large", {"num_hidden_layers": 4}, "The weights lack encoder.stack.blocks.3."),
        ("wav2vec2-large", {"model_type": "wavlm", "num_buckets": 4}, "config.json lacks max_bucket_distance"),
        ("wav2vec2-large", {"model_type": "bert"}, 'The model type "bert" cannot be imported; these can: whisper, '),
    ],
)
def test_another_architecture_is_one_sentence(
    name: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    case = next(case for case in CASES if case.name == name)
    saved(case, tmp_path / "theirs")
    path = tmp_path / "theirs/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(IsoglossError) as caught:
        import_model(f"hf:{tmp_path / 'theirs'}", tmp_path / "ours")
    assert said in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "ours").exists()


MMS = Case("mms", "Wav2Vec2", WAVEFORM | POSITIONS | LARGE | {"adapter_attn_dim": 6})
RON, ELL = (
    {symbol: number for number, symbol in enumerate(["<pad>", "<s>", "|", *letters])} for letters in ("astă", "αβγδε")
)


@pytest.fixture(scope="module")
def mms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A twin of MMS, which has the adapter of Romanian, and a file with each of Romanian and Greek."""
    folder = tmp_path_factory.mktemp("mms")
    model, _ = saved(replace(MMS, config=MMS.config | {"vocab_size": len(RON)}), folder)
    (folder / "vocab.json").write_text(json.dumps({"ell": ELL, "ron": RON}))
    for name, symbols in (("ron", RON), ("ell", ELL)):
        adapter = {key: value.detach().clone() for key, value in model._get_adapters().items()}
        if name == "ell":
            for key, value in adapter.items():
                adapter[key] = torch.randn(len(symbols), *value.shape[1:]) if "lm_head" in key else -value
        safetensors.torch.save_file(adapter, folder / f"adapter.{name}.safetensors")
    return folder, model


@torch.no_grad()
@pytest.mark.parametrize(("language", "name", "symbols"), [("ro", "ron", RON), ("ell", "ell", ELL)])
def test_adapters_and_letters_of_a_language(
    mms: tuple[Path, Any], language: str, name: str, symbols: dict[str, int], tmp_path: Path
) -> None:
    folder, _ = mms
    found = import_model(f"hf:{folder}", tmp_path / "ours", language=language)
    assert found.difference is not None and found.difference < 1e-5
    theirs = transformers.Wav2Vec2ForCTC.from_pretrained(
        folder, target_lang=name, ignore_mismatched_sizes=True
    ).eval()
    audio = torch.from_numpy(sound(2))
    ours = found.model
    encoded = ours.encode(ours.features(Sequence.from_list([audio])), tuple(range(LAYERS + 1)))
    normal = (audio - audio.mean()) / (audio.var(correction=0) + 1e-7).sqrt()
    expected = theirs(normal[None], output_hidden_states=True)
    for number in range(LAYERS):
        assert_close(encoded.layers[number].values, expected.hidden_states[number], rtol=0, atol=1e-4)
    rows = [0, *range(2, len(symbols))]
    assert_close(ours.ctc_head()(encoded.final).values, expected.logits[..., rows].log_softmax(-1), rtol=0, atol=1e-4)
    assert ours.tokenizer is not None
    assert ours.tokenizer.spelling()[1:] == [b" ", *(key.encode() for key in list(symbols)[3:])]


def test_a_second_language_is_written_without_what_both_share(mms: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = mms
    import_model(f"hf:{folder}", tmp_path / "ro", language="ro")
    import_model(f"hf:{folder}", tmp_path / "el", language="el", base=tmp_path / "ro")
    kept = safetensors.torch.load_file(tmp_path / "el/model.safetensors")
    assert all(".adapter." in name or name.startswith("heads.") for name in kept)
    both = load_model(tmp_path / "el"), import_model(f"hf:{folder}", tmp_path / "whole", language="el").model
    assert all(torch.equal(*pair) for pair in zip(*(model.state_dict().values() for model in both), strict=True))
    exported = export_transformers(tmp_path / "el", tmp_path / "back")
    weights = safetensors.torch.load_file(tmp_path / "back/model.safetensors")
    adapter = safetensors.torch.load_file(folder / "adapter.ell.safetensors")
    assert exported.kind == "wav2vec2"
    assert all(torch.equal(weights[name], value) for name, value in adapter.items() if "lm_head" not in name)


def test_a_language_that_is_not_there_is_one_sentence(mms: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(mms[0], folder)

    def refusal(language: str | None) -> str:
        with pytest.raises(IsoglossError) as caught:
            import_model(f"hf:{folder}", tmp_path / "ours", language=language)
        return str(caught.value)

    assert refusal(None) == "The model has letters by language; name one with --language: ell, ron."
    assert refusal("fr") == 'The model has no language "fr". It has ell, ron.'
    (folder / "adapter.ell.safetensors").rename(folder / "adapter.ell.bin")
    assert "adapter.ell.bin is pickled, which could run any code; get adapter.ell.safetensors" in refusal("el")
    (folder / "adapter.ell.bin").unlink()
    assert "adapter.ell.safetensors is missing" in refusal("el")
    saved(CASES[0], tmp_path / "plain")
    with pytest.raises(IsoglossError, match=r'The model has no adapters, and none for "ro"; leave out --language\.'):
        import_model(f"hf:{tmp_path / 'plain'}", tmp_path / "ours", language="ro")
