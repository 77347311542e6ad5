"""Other people's formats: weights that exist come in as a model folder, and a model folder goes out as one of theirs.

a folder of theirs ── their tensors by their names ── ours by our names ── compared on a clip ──> a model folder
                   <── compared on a clip ── theirs ── by the same tables ──
"""
