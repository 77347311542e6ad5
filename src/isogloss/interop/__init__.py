"""Other people's formats: weights that exist come in as a model folder.

a folder of theirs ── their tensors by their names ── ours by our names ── compared on a clip ──> a model folder
"""
