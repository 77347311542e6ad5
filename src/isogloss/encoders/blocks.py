"""The kinds of blocks there are, and what each configuration states, so that nobody asks which kind it is.

    layers, width           how many, and the width D of their states
    feeds                   feed-forward modules in a block, beside which adapters may stand
    attends                 whether they attend to other frames, as the context policy allows
    layer_drop              with which probability a block is left out of a training step
    alike                   whether all blocks are of one size, but for the width of what enters the first
    any_width               whether the first block takes inputs of any width; otherwise it is D
    final_norm              whether a LayerNorm follows the last block
    cannot_stream           why they cannot work on audio as it arrives, and what helps; None where they can
    entry()                 what is done before the first block, as positions: (x, valid) -> (B, T, D); None for nothing
    bias_of_positions()     what all blocks add to the scores of attention: (T, P+T) -> (H, T, P+T); None for nothing
    build(inputs)           the blocks; each (x, valid, mask, past, adapters) -> (B, T, D), with such a bias (…, bias)
"""

from typing import Annotated

from pydantic import Field

from isogloss.encoders.causal_cnn import CausalCNNConfig
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.qrnn import QRNNConfig
from isogloss.encoders.recurrent import RecurrentConfig
from isogloss.encoders.transformer import TransformerConfig

BlocksConfig = Annotated[
    ConformerConfig | TransformerConfig | RecurrentConfig | QRNNConfig | CausalCNNConfig,
    Field(discriminator="kind"),
]
