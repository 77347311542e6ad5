"""`isogloss export --format onnx`: a model folder -> ONNX graphs, compared with the model on a clip.

    model.onnx        audio (B, S) float32 at 16 kHz, lengths (B,) int64
                      -> states (B, T, D), frames (B,), and with a CTC head log_probabilities (B, T, V)
    predictor.onnx    of a transducer: symbols (B,), state_0 … -> text (B, J), next_0 …
    joiner.onnx       states (B, D), text (B, J) -> log_probabilities (B, V)
    symbols.json      rates, the text of each symbol, the symbols of each language

Features are in the graph. What stands after a length changes nothing, and outputs after `frames` mean nothing.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from isogloss.audio.reading import SAMPLE_RATE, as_waveform
from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, json_text, require_replaceable, sha256
from isogloss.heads.transducer import TransducerHead
from isogloss.interop.comparing import made_sound
from isogloss.interop.onnx_parts import traceable
from isogloss.model.folder import CARD, load_model, read_card
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BLANK

GRAPH, PREDICTOR, JOINER, SYMBOLS = "model.onnx", "predictor.onnx", "joiner.onnx", "symbols.json"
BOUND = 1e-3
"""Largest difference of any output from the model's, in float32."""
LONGEST = 30 * SAMPLE_RATE
"""Samples of a probe clip that are compared."""
QUANTISED = ("MatMul", "Gemm")
OPSET = 20
EXTRA = "pip install isogloss[onnx]"
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Exported:
    """What was compared on the clip.

    difference: the largest of float32 outputs from those of the model. int8: the root mean square of how much int8
    changes the states, as a share of their own, and the share of frames whose likeliest symbol is the same; None
    without int8, and without a CTC head.
    """

    difference: float
    int8_states: float | None = None
    int8_same: float | None = None


class Encoding(nn.Module):
    """Waveforms (B, S) and lengths (B,) -> states (B, T, D), frames (B,), log-probabilities (B, T, V) if there are any.
    """

    def __init__(self, model: Model, language: str | None):
        super().__init__()
        self.model = model
        self.languages = None if language is None else [language]  # broadcast over the batch
        self.least = model.framing.receptive_field

    def forward(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        # However short audio is, the graph has a frame to work on, be it of padding.
        audio = pad(audio, (0, self.least))
        states = self.model.encode(self.model.features(Sequence(audio, lengths)), languages=self.languages).final
        found = states.values, states.lengths
        return (*found, self.model.ctc_head()(states).values) if self.model.spec.ctc_heads("symbols") else found


class Predicting(nn.Module):
    """A transducer's next symbols (B,) and what it remembers -> projected states (B, J) and what it remembers."""

    def __init__(self, head: TransducerHead):
        super().__init__()
        self.head = head

    def forward(self, symbols: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        text, after = self.head.step(symbols, state)
        return text, *after


class Joining(nn.Module):
    """A frame of the encoder (B, D) and projected states of the predictor (B, J) -> log-probabilities (B, V)."""

    def __init__(self, head: TransducerHead):
        super().__init__()
        self.head = head

    def forward(self, states: Tensor, text: Tensor) -> Tensor:
        return self.head.join(self.head.audio(states), text)


@dataclass(frozen=True)
class Part:
    """A graph to be: its file, the module, inputs to trace and to compare it with, names of inputs and outputs.

    free: names of the axes whose length is free, by input; of states that are passed on, those of each.
    """

    file: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]
    free: dict[str, Any]

    @torch.no_grad()
    def expected(self) -> Arrays:
        """What the module makes of the inputs."""
        found = self.module(*self.inputs.values())
        values = found if isinstance(found, tuple) else (found,)
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}


def export_onnx(
    folder: Path, out: Path, *, int8: bool = False, language: str | None = None, probe: Path | None = None
) -> Exported:
    """Write a model folder as a folder of ONNX graphs; nothing is written where they differ from the model.

    int8: round the weights of matrix products, whose inputs are then rounded as they come. language: which adapter is
    taken, of a model that has some. probe: a clip to compare on; by default a made sound. Raises IsoglossError for
    what cannot be exported.
    """
    _require_packages()
    require_replaceable(out, SYMBOLS)
    model = load_model(folder)
    _check(model, folder, language)
    audio, lengths = _probe(made_sound() if probe is None else as_waveform(probe)[:LONGEST], model)
    compared = parts(model, language, audio, lengths)
    expected = {part.file: part.expected() for part in compared}
    with atomic_folder(out, SYMBOLS) as place:
        # Traced on fewer and shorter clips than compared: a graph that knows only its own sizes is found out.
        for part in parts(traceable(model), language, audio[1:, : lengths[1]], lengths[1:]):
            _write(part, place / part.file)
        found = {part.file: _run(place / part.file, part.inputs) for part in compared}
        difference = max(_largest(found[file], expected[file]) for file in expected)
        if not difference <= BOUND:
            raise IsoglossError(
                f"The outputs of the exported graphs differ by {difference:.1e} from those of {folder}, more than "
                f"{BOUND:g}; nothing was written. Please report the model."
            )
        about = Exported(difference)
        if int8:
            for part in compared:
                _quantise(place / part.file)
            about = Exported(difference, *_changes(_run(place / GRAPH, compared[0].inputs), expected[GRAPH]))
        (place / SYMBOLS).write_text(json_text(symbols(model), indent=1) + "\n", encoding="utf-8")
        (place / CARD).write_text(_card(folder, place, compared, about, language), encoding="utf-8")
    return about


def parts(model: Model, language: str | None, audio: Tensor, lengths: Tensor) -> list[Part]:
    """What a model is exported as: features, encoder and CTC; then the two networks of its first transducer."""
    encoding = Encoding(model, language)
    names = ["states", "frames", *(["log_probabilities"] if model.spec.ctc_heads("symbols") else [])]
    batch = {0: "batch"}
    free: dict[str, Any] = {"audio": batch | {1: "samples"}, "lengths": batch}
    made = [Part(GRAPH, encoding, {"audio": audio, "lengths": lengths}, names, free)]
    transducers = [name for name, config in model.spec.heads.items() if config.kind == "transducer"]
    return made + _transducer_parts(model.head(transducers[0], TransducerHead), lengths) if transducers else made


def _transducer_parts(head: TransducerHead, lengths: Tensor) -> list[Part]:
    """The two networks that write symbol by symbol, for as many clips."""
    count, batch = len(lengths), {0: "batch"}
    with torch.no_grad():
        text, state = head.begin(count)
    states = {f"state_{number}": part for number, part in enumerate(state)}
    inputs = {"symbols": torch.arange(count) % len(head.output.weight)} | states
    outputs = ["text", *(f"next_{number}" for number in range(len(state)))]
    free: dict[str, Any] = {"symbols": batch, "state": tuple(batch for _ in state)}
    predictor = Part(PREDICTOR, Predicting(head), inputs, outputs, free)
    frames = torch.linspace(-1, 1, count * head.audio.weight.shape[1]).view(count, -1)
    joined = {"states": frames, "text": text}
    joiner = Part(JOINER, Joining(head), joined, ["log_probabilities"], dict.fromkeys(joined, batch))
    return [predictor, joiner]


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise IsoglossError(f"{error.name} is not installed, which the export to ONNX needs: {EXTRA}.") from None


def _check(model: Model, folder: Path, language: str | None) -> None:
    """Raise IsoglossError for what a graph cannot hold."""
    if not model.encoder.config.blocks.attends:
        kind = model.encoder.config.blocks.kind
        raise IsoglossError(f"{folder} has {kind} blocks; only Transformers and Conformers can be exported.")
    bank = model.encoder.adapters
    if bank is not None and language is None:
        known = ", ".join(sorted({tag for members in bank.groups.values() for tag in members}))
        raise IsoglossError(f"{folder} has adapters, of which a graph holds one; name its --language: {known}.")
    if bank is None and language is not None:
        raise IsoglossError(f"{folder} has no adapters: its graph is that of every language; leave out --language.")


def _probe(samples: NDArray[np.float32], model: Model) -> tuple[Tensor, Tensor]:
    """A clip, its first half and its first quarter, behind which stands what must not matter: (3, S), (3,)."""
    if model.spec.frames(len(samples) // 4) < 1:
        raise IsoglossError(f"The probe clip is too short ({len(samples) / SAMPLE_RATE:.2f} s); give a longer one.")
    lengths = torch.tensor([len(samples) // part for part in (1, 2, 4)])
    audio = torch.from_numpy(samples).expand(3, -1)
    return audio.where(torch.arange(len(samples)) < lengths[:, None], torch.nan), lengths


def _write(part: Part, path: Path) -> None:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            part.module.eval(),
            tuple(part.inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(part.inputs),
            output_names=part.outputs,
            dynamic_shapes=part.free,
        )
        assert program is not None
        program.save(path)  # beside it its weights, where they are more than 2 GB


def _quantise(path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path, load_external_data=False).graph
    matrices = {weight.name for weight in graph.initializer if len(weight.dims) == 2}
    nodes = [node.name for node in graph.node if node.op_type in QUANTISED and node.input[1] in matrices]
    rounded = path.with_suffix(".int8")
    # Seven bits: products of eight overflow on processors without VNNI.
    asked = {"nodes_to_quantize": nodes, "per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with _quiet():
        quantize_dynamic(path, rounded, list(QUANTISED), **asked)
    rounded.replace(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of exporter and quantiser, which are for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _run(path: Path, inputs: dict[str, Tensor]) -> Arrays:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    return dict(zip(names, found, strict=True))


def _flat(outputs: Arrays, name: str) -> NDArray[Any]:
    """One output without its padding: (frames of all utterances, …) where it has frames."""
    values = outputs[name]
    if "frames" not in outputs or name == "frames":
        return values
    return np.concatenate([row[:count] for row, count in zip(values, outputs["frames"], strict=True)])


def _largest(found: Arrays, expected: Arrays) -> float:
    """The largest difference of any output."""
    return max(float(np.abs(_flat(found, name) - _flat(expected, name)).max(initial=0.0)) for name in expected)


def _changes(found: Arrays, expected: Arrays) -> tuple[float, float | None]:
    """How much states are changed, as a share of their size, and in which share of frames the best symbol is kept."""
    before, after = (_flat(outputs, "states") for outputs in (expected, found))
    share = float(np.sqrt(np.square(after - before).mean() / np.square(before).mean()))
    if "log_probabilities" not in expected:
        return share, None
    best = [_flat(outputs, "log_probabilities").argmax(axis=1) for outputs in (expected, found)]
    return share, float((best[0] == best[1]).mean())


def symbols(model: Model) -> dict[str, Any]:
    """What a program must know beside the graphs. Symbols that are parts of a character hold lone surrogates."""
    spelling = [] if model.tokenizer is None else model.tokenizer.spelling()
    return {
        "sample_rate": SAMPLE_RATE,
        "frame_seconds": model.frame_seconds,
        "blank": BLANK,
        "symbols": [piece.decode("utf-8", errors="surrogateescape") for piece in spelling],
        "alphabets": model.config.alphabets,
    }


def _card(folder: Path, place: Path, made: list[Part], about: Exported, language: str | None) -> str:
    """What the folder holds, and then the model's own card."""
    title, _, rest = read_card(folder).partition("\n")
    files = {part.file: part for part in made}
    rows = [
        f"| `{file.name}` | {_signature(files[file.name]) if file.name in files else ''} | `{sha256(file)}` |"
        for file in sorted(place.iterdir())
    ]
    told = f" with the adapter of {language}" if language else ""
    compared = [f"Outputs differ from those of the model by {about.difference:.1e} at most, in float32, on a clip."]
    if about.int8_states is not None:
        compared.append(f"Then weights were rounded to int8: {described(about)}.")
    return CARD_TEXT.format(title=title, told=told, rows="\n".join(rows), compared=" ".join(compared)) + rest


def described(about: Exported) -> str:
    """What int8 changes, in words."""
    states = f"hidden states change by {about.int8_states:.1%} of their size"
    if about.int8_same is None:
        return states
    return f"{states}, and the likeliest symbol of {about.int8_same:.1%} of frames is the same"


def _signature(part: Part) -> str:
    return f"{', '.join(part.inputs)} → {', '.join(part.outputs)}"


CARD_TEXT = """{title}

This is the model of the card below as ONNX graphs{told}, for onnxruntime and everything else that reads them.
{compared}

| file | inputs → outputs | SHA-256 |
|---|---|---|
{rows}

`audio` (B, S) is float32 in [-1, 1] at 16 kHz, and of each row `lengths` (B,) samples count; `states` (B, T, D) and
`log_probabilities` (B, T, V) hold `frames` (B,) frames of each. `symbols.json` has the text of the V symbols, of which
number 0 is the blank, and which of them each language is written with.

With int8 weights, inputs of layers are rounded by the largest value of the batch: what a clip gives then depends a
little on the clips beside it.

A transducer starts with symbol 0 and states of zeros in `predictor.onnx`. In each frame `joiner.onnx` takes the
frame of `states` and `text`, and its likeliest symbol is written and fed to the predictor, until that is blank.
"""
