"""A model as ONNX graphs: the parts that stand for others, the same outputs on real clips, and use without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from numpy.typing import NDArray
from torch.testing import assert_close

from isogloss import cli
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.reading import as_waveform
from isogloss.audio.waveform import WaveformConfig
from isogloss.data.manifests import Utterance
from isogloss.decoding.greedy import greedy
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import ConvolutionsConfig, IdentityConfig, ProjectionConfig, SubsamplingConfig
from isogloss.encoders.quantised import GumbelConfig, NearestConfig
from isogloss.encoders.recurrent import RecurrentConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import ConvolutionalPositionConfig, TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.heads.ctc import CTCConfig
from isogloss.heads.transducer import TransducerConfig
from isogloss.interop import onnx_export
from isogloss.interop.onnx_export import Exported, export_onnx, symbols
from isogloss.interop.onnx_parts import traceable
from isogloss.model.folder import save_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.adapters import AdapterConfig
from isogloss.nn.masks import LocalContext
from isogloss.nn.predictors import StatelessConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import ByteTokenizer, CharacterTokenizer
from small_models import build, sound, streaming

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLE = Path(__file__).parents[1] / "examples/onnx_transcribe.py"
SMALL: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2}
POSITIONS = ConvolutionalPositionConfig(kernel=16, groups=4)


def random(features: Any, embed: Any, blocks: Any, tokenizer: Any = None, **encoder: Any) -> Model:
    """A small model with random weights and CTC."""
    torch.manual_seed(0)
    config = SpeechEncoderConfig(embed=embed, blocks=blocks, **encoder)
    heads = {"ctc": CTCConfig(), "transducer": TransducerConfig(predictor=StatelessConfig(width=8), joiner=8)}
    made = Model(ModelConfig(features=features, encoder=config, heads=heads), tokenizer or CharacterTokenizer("abc "))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def whisper() -> Model:
    features = LogMelConfig(flavour="whisper", low_hz=0.0, normalisation="whisper")
    return random(features, ConvolutionsConfig(), TransformerConfig(position="none", **SMALL))


def wav2vec2_base() -> Model:
    blocks = TransformerConfig(norm="post", position="none", convolution=POSITIONS, **SMALL)
    return random(WaveformConfig(channels=8), ProjectionConfig(), blocks)


def wav2vec2_large() -> Model:
    blocks = TransformerConfig(norm="pre", position="none", convolution=POSITIONS, **SMALL)
    features = WaveformConfig(channels=8, norm="layer", bias=True, normalisation="utterance")
    return random(features, ProjectionConfig(), blocks)


def conformer() -> Model:
    blocks = ConformerConfig(kernel=3, position="relative", norm="group", **SMALL)
    features = LogMelConfig(flavour="kaldi", normalisation="none")
    return random(features, SubsamplingConfig(channels=4), blocks, context=LocalContext(left=9, right=5))


def wavlm() -> Model:
    blocks = TransformerConfig(position="gated", buckets=8, max_distance=30, convolution=POSITIONS, **SMALL)
    return random(WaveformConfig(channels=8, norm="layer"), ProjectionConfig(), blocks)


def data2vec() -> Model:
    deep = ConvolutionalPositionConfig(kernel=5, groups=4, layers=2, norm="layer")
    blocks = TransformerConfig(norm="post", position="none", convolution=deep, **SMALL)
    return random(WaveformConfig(channels=8, norm="layer"), ProjectionConfig(), blocks)


def w2v_bert() -> Model:
    blocks = ConformerConfig(kernel=3, position="relative_key", causal=True, **SMALL)
    return random(LogMelConfig(flavour="kaldi"), SubsamplingConfig(channels=4), blocks)


def vq_wav2vec() -> Model:
    features = WaveformConfig(channels=16, norm="layer", log_compression=True)
    return random(features, GumbelConfig(codes=5), TransformerConfig(**SMALL))


def nearest() -> Model:
    return random(WaveformConfig(channels=16, norm="layer"), NearestConfig(codes=5), TransformerConfig(**SMALL))


def adapted() -> Model:
    adapters = AdapterConfig(bottleneck=4, groups={"first": ("ro",), "second": ("ru",)})
    return random(LogMelConfig(), SubsamplingConfig(channels=4), TransformerConfig(**SMALL), adapters=adapters)


def quantised() -> Model:
    return random(LogMelConfig(), SubsamplingConfig(channels=4), ConformerConfig(kernel=3, **SMALL)).quantised()


MODELS = [whisper, wav2vec2_base, wav2vec2_large, wavlm, data2vec, w2v_bert, conformer, vq_wav2vec, nearest]
MODELS += [adapted, quantised]


def batch(*clips: NDArray[np.float32]) -> Sequence:
    """Clips with NaN behind each."""
    padded = Sequence.from_list([torch.from_numpy(clip) for clip in clips])
    return padded.with_values(padded.values.where(padded.valid, torch.nan))


@torch.no_grad()
def outputs(model: Model, audio: Sequence, language: str | None = None) -> tuple[list[torch.Tensor], ...]:
    """States and log-probabilities of each clip."""
    languages = [language] * len(audio) if language else None
    states = model.encode(model.features(audio), languages=languages).final
    return states.unpad(), model.ctc_head()(states).unpad()


@pytest.mark.parametrize("made", MODELS, ids=lambda made: made.__name__)
def test_parts_of_a_graph_compute_what_they_stand_for(made: Any) -> None:
    model = made()
    audio = batch(sound(2), sound(1.3, seed=1), sound(0.02, seed=2))
    for found, expected in zip(outputs(traceable(model), audio), outputs(model, audio), strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours, theirs, rtol=1e-4, atol=3e-4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model with self-conditioned CTC and a transducer, and its graphs."""
    folder = tmp_path_factory.mktemp("exported")
    model = streaming()
    save_model(model, folder / "model", "# A card\n\nIts licence.\n")
    assert cli.run(["export", str(folder / "model"), "--format", "onnx", "--out", str(folder / "onnx")]) == 0
    return model, folder / "onnx"


def session(folder: Path, name: str = "model.onnx") -> Any:
    return onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])


def run(graph: Any, audio: Sequence) -> dict[str, NDArray[Any]]:
    names = [output.name for output in graph.get_outputs()]
    found = graph.run(names, {"audio": audio.values.numpy(), "lengths": audio.lengths.numpy()})
    return dict(zip(names, found, strict=True))


def check(graph: Any, model: Model, audio: Sequence, language: str | None = None) -> None:
    """That a graph gives the outputs of the model, whatever stands behind each clip."""
    found = run(graph, audio)
    states, scores = outputs(model, audio, language)
    for name, expected in (("states", states), ("log_probabilities", scores)):
        for ours, frames, theirs in zip(found[name], found["frames"], expected, strict=True):
            assert frames == len(theirs)
            # In a clip with an empty band the model's FFT is 1.3e-3 from exact arithmetic; the graph is nearer to it.
            assert_close(torch.from_numpy(ours[:frames]), theirs, rtol=0, atol=2e-3)


def test_graphs_agree_with_the_model_on_real_clips(exported: tuple[Model, Path], clips: list[Utterance]) -> None:
    model, folder = exported
    graph = session(folder)
    recordings = [as_waveform(clip.audio) for clip in clips]
    check(graph, model, batch(*recordings))
    for recording in recordings[:3]:
        check(graph, model, batch(recording))  # where nothing is padded
    check(graph, model, batch(recordings[0][:300]))  # less than a frame
    check(graph, model, batch(recordings[0][:0]))


def test_the_transducer_decodes_as_the_model_does(exported: tuple[Model, Path]) -> None:
    model, folder = exported
    audio = batch(sound(4, seed=3))
    found = run(session(folder), audio)
    predictor, joiner = session(folder, "predictor.onnx"), session(folder, "joiner.onnx")

    def read(symbol: int, state: list[NDArray[Any]]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        fed = {f"state_{number}": part for number, part in enumerate(state)}
        text, *after = predictor.run(None, {"symbols": np.array([symbol]), **fed})
        return text, after

    text, state = read(0, [np.zeros((1, *what.shape[1:]), np.float32) for what in predictor.get_inputs()[1:]])
    written: list[int] = []
    for frame in found["states"][0, : found["frames"][0]]:
        for _ in range(10):
            best = int(joiner.run(None, {"states": frame[None], "text": text})[0].argmax())
            if not best:
                break
            written.append(best)
            text, state = read(best, state)
    with torch.no_grad():
        (expected,) = model.decode(model.encode(model.features(audio)).final, "transducer")
    assert written == expected.tokens and len(set(written)) > 1


def test_the_example_needs_neither_torch_nor_isogloss(exported: tuple[Model, Path], tmp_path: Path) -> None:
    model, folder = exported
    clips = [sound(3, seed=1), sound(2, seed=2)]
    paths = [tmp_path / f"{number}.wav" for number in range(2)]
    for path, clip in zip(paths, clips, strict=True):
        sf.write(path, clip, 16000, subtype="FLOAT")
    blocked = "import runpy, sys; sys.modules |= {'torch': None, 'isogloss': None}; sys.argv = sys.argv[1:]; "
    code = f"{blocked}runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", code, str(EXAMPLE), str(folder), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    with torch.no_grad():
        scores = model.ctc_head()(model.encode(model.features(batch(*clips))).final)
    assert model.tokenizer is not None
    texts = [" ".join(model.tokenizer.decode(found.tokens).split()) for found in greedy(scores)]
    assert done.stdout.splitlines() == [f"{path}\t{text}" for path, text in zip(paths, texts, strict=True)]
    assert all(texts)
    sf.write(tmp_path / "8000.wav", clips[0], 8000)
    done = subprocess.run([*command[:5], str(tmp_path / "8000.wav")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "has 8000 samples a second" in done.stderr


def test_the_folder_says_what_it_holds(exported: tuple[Model, Path]) -> None:
    _, folder = exported
    files = {"model.onnx", "predictor.onnx", "joiner.onnx", "symbols.json", "README.md"}
    assert {file.name for file in folder.iterdir()} == files
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A card\n") and "Its licence." in card and "| symbols, state_0, state_1 →" in card
    known = json.loads((folder / "symbols.json").read_text(encoding="utf-8"))
    assert known["symbols"] == ["", " ", "a", "b", "c"] and known["sample_rate"] == 16000
    assert known["frame_seconds"] == 0.04


def test_symbols_that_are_parts_of_characters_come_back() -> None:
    tokenizer = ByteTokenizer()
    model = Model(ModelConfig(encoder=build().config.encoder), tokenizer)
    known = json.loads(json.dumps(symbols(model)))["symbols"]
    text = "".join(known[symbol] for symbol in tokenizer.encode("año ț"))
    assert text.encode("utf-8", "surrogateescape").decode("utf-8") == "año ț"


def test_int8_weights_are_smaller_and_what_they_change_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build()
    save_model(model, tmp_path / "model", "# A card\n")
    arguments = ["export", str(tmp_path / "model"), "--format", "onnx", "--int8", "--out", str(tmp_path / "onnx")]
    assert cli.run(arguments) == 0
    assert "With int8 weights hidden states change by" in capfd.readouterr().err
    assert "Then weights were rounded to int8" in (tmp_path / "onnx/README.md").read_text(encoding="utf-8")
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(tmp_path / "onnx/model.onnx").graph
    kinds = {weight.name: weight.data_type for weight in graph.initializer}
    assert onnx.TensorProto.INT8 in kinds.values()
    assert not [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in kinds]
    audio = batch(sound(3), sound(2, seed=1))
    found = run(session(tmp_path / "onnx"), audio)
    for ours, theirs in zip(found["states"], outputs(model, audio)[0], strict=True):
        error = torch.from_numpy(ours[: len(theirs)]) - theirs
        assert 0 < error.square().mean() < 0.05**2 * theirs.square().mean()


def test_what_cannot_be_exported_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    def refusal(model: Model, **how: Any) -> str:
        save_model(model, tmp_path / "model", "# A card\n")
        with pytest.raises(IsoglossError) as caught:
            export_onnx(tmp_path / "model", out, **how)
        assert not out.exists()
        return str(caught.value)

    recurrent = random(LogMelConfig(), IdentityConfig(), RecurrentConfig(layers=1, width=16))
    assert "has rnn blocks" in refusal(recurrent)
    assert "name its --language: ro, ru." in refusal(adapted())
    assert "has no adapters" in refusal(build(), language="ro")
    sf.write(tmp_path / "short.wav", sound(0.05), 16000)
    assert "too short (0.05 s)" in refusal(build(), probe=tmp_path / "short.wav")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "onnxscript is not installed" in refusal(build())
    out.mkdir()
    (out / "mine.txt").touch()
    monkeypatch.undo()
    with pytest.raises(IsoglossError, match="holds something else"):
        export_onnx(tmp_path / "model", out)


@pytest.mark.slow
def test_graphs_that_differ_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(build(), tmp_path / "model", "# A card\n")
    monkeypatch.setattr(onnx_export, "BOUND", 0.0)
    with pytest.raises(IsoglossError, match="more than 0; nothing was written"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize("made", MODELS, ids=lambda made: made.__name__)
def test_every_kind_of_model_is_exported(made: Any, clips: list[Utterance], tmp_path: Path) -> None:
    model = made()
    language = "ru" if model.encoder.adapters is not None else None
    save_model(model, tmp_path / "model", "# A card\n")
    found = export_onnx(tmp_path / "model", tmp_path / "onnx", language=language)
    assert isinstance(found, Exported) and found.difference < 1e-3
    recordings = [as_waveform(clip.audio) for clip in clips]
    check(session(tmp_path / "onnx"), model, batch(*recordings), language)
    check(session(tmp_path / "onnx"), model, batch(recordings[4]), language)
