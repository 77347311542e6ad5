"""The peers of `encoder.py`: each function builds one of them and returns what is timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Work = Callable[[], object]
Sizes = dict[str, int]


def torchaudio(sizes: Sizes, states: Tensor) -> Work:
    from torchaudio.models import Conformer

    model = Conformer(sizes["width"], sizes["heads"], 4 * sizes["width"], sizes["layers"], 31)
    model = model.eval().to(states.device, states.dtype)
    lengths = torch.full((len(states),), states.shape[1], device=states.device)
    return lambda: model(states, lengths)


def speechbrain(sizes: Sizes, states: Tensor, attention: str) -> Work:
    from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    from speechbrain.nnet.attention import RelPosEncXL

    model = ConformerEncoder(
        sizes["layers"], sizes["width"], 4 * sizes["width"], sizes["heads"], attention_type=attention
    )
    model = model.eval().to(states.device, states.dtype)
    positions = RelPosEncXL(sizes["width"]).to(states.device) if attention == "RelPosMHAXL" else None
    return lambda: model(states, pos_embs=None if positions is None else positions(states))


def wav2vec2_conformer_stack(sizes: Sizes, states: Tensor, position: str) -> Work:
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerModel

    config = Wav2Vec2ConformerConfig(position_embeddings_type=position, **_dimensions(sizes))
    encoder = Wav2Vec2ConformerModel(config).encoder.eval().to(states.device, states.dtype)
    return lambda: encoder(states)


def transformers_model(sizes: Sizes, waveforms: Tensor, name: str, **options: Any) -> Work:
    """A whole model of transformers, from (B, S) audio."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**_dimensions(sizes), **options)
    model = getattr(transformers, f"{name}Model")(config).eval().to(waveforms.device, waveforms.dtype)
    return lambda: model(waveforms)


def wav2vec2_step(sizes: Sizes, waveforms: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """wav2vec 2.0 pre-training: the module, and its loss on fixed masks and negatives."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    model = Wav2Vec2ForPreTraining(Wav2Vec2Config(layerdrop=0.0, **_dimensions(sizes))).to(waveforms.device)
    config = model.config
    shape = (len(waveforms), int(model._get_feat_extract_output_lengths(waveforms.shape[1])))
    mask = _compute_mask_indices(shape, config.mask_time_prob, config.mask_time_length, min_masks=2)
    negatives = _sample_negative_indices(shape, config.num_negatives, mask)
    masked = torch.from_numpy(mask).to(waveforms.device)
    sampled = torch.from_numpy(negatives).to(waveforms.device)
    count = int(mask.sum())

    def loss() -> Tensor:
        result = model(waveforms, mask_time_indices=masked, sampled_negative_indices=sampled)
        return result.loss / count

    return model, loss


def _dimensions(sizes: Sizes) -> dict[str, Any]:
    """The sizes as transformers calls them."""
    return {
        "num_hidden_layers": sizes["layers"],
        "hidden_size": sizes["width"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": 4 * sizes["width"],
    }


STACK_PEERS: dict[str, Callable[[Sizes, Tensor], Work]] = {
    "torchaudio Conformer (no positions) fp32": torchaudio,
    "torchaudio Conformer (no positions) bf16": torchaudio,
    "speechbrain Conformer regular fp32": partial(speechbrain, attention="regularMHA"),
    "speechbrain Conformer RoPE fp32": partial(speechbrain, attention="RoPEMHA"),
    "speechbrain Conformer RelPosXL fp32": partial(speechbrain, attention="RelPosMHAXL"),
    "transformers Wav2Vec2Conformer rotary fp32": partial(wav2vec2_conformer_stack, position="rotary"),
    "transformers Wav2Vec2Conformer rotary bf16": partial(wav2vec2_conformer_stack, position="rotary"),
    "transformers Wav2Vec2Conformer relative fp32": partial(wav2vec2_conformer_stack, position="relative"),
}
AUDIO_PEERS: dict[str, Callable[[Sizes, Tensor], Work]] = {
    "transformers Wav2Vec2Conformer rotary fp32": partial(
        transformers_model, name="Wav2Vec2Conformer", position_embeddings_type="rotary"
    ),
    "transformers Wav2Vec2Conformer relative fp32": partial(
        transformers_model, name="Wav2Vec2Conformer", position_embeddings_type="relative"
    ),
    "transformers Wav2Vec2 fp32": partial(transformers_model, name="Wav2Vec2"),
    "transformers Wav2Vec2 bf16": partial(transformers_model, name="Wav2Vec2"),
    "transformers Hubert fp32": partial(transformers_model, name="Hubert"),
}
