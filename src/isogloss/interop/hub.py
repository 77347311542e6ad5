"""`isogloss pull`: a model of the Hugging Face hub -> a folder in that library's cache, without code and pickles.

What a revision names is resolved to a commit, which `pulled.json` in the folder states. Where the hub cannot be
reached, or HF_HUB_OFFLINE is set, the folder is that of the cache. The library obeys HF_ENDPOINT, HF_HOME and HF_TOKEN.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.files import read_json, write_json
from isogloss.interop.arrays import adapter_file

WANTED = (
    "model*.safetensors*", "pretraining.safetensors", "config.json", "preprocessor_config.json",
    "processor_config.json", "generation_config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "normalizer.json", "vocab.json", "vocab.txt", "merges.txt", "README.md", "LICENSE*", "lm/*",
)  # fmt: skip
"""Weights, configuration, tokenizer, and what their owners say of them; nothing that could run.

None begins with a star: folders hold the same model for other libraries, but for `lm`, a language model of ours.
"""
PULLED = "pulled.json"


@dataclass(frozen=True)
class Origin:
    """Where a folder is from: the model's name, the revision that was asked for, and the commit that it was."""

    name: str
    revision: str
    commit: str


def pull(name: str, revision: str = "main", language: str | None = None) -> Path:
    """Fetch a model, and return its folder. name: ORGANISATION/MODEL. revision: a branch, tag or commit.

    language: whose adapter comes too, as the model calls it; MMS has more than a thousand.

    Raises IsoglossError, in one sentence, for what is not there, may not be had, or has no safetensors weights.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise IsoglossError("isogloss pull needs huggingface_hub: pip install isogloss[interop].") from None
    wanted = [*WANTED, *([adapter_file(language)] if language else [])]
    with _one_sentence(name, revision):
        found = snapshot_download(name, revision=revision, allow_patterns=wanted)
    folder = Path(found)
    if not any(folder.glob("*.safetensors")):
        raise IsoglossError(
            f"{name} ({revision}) has no .safetensors weights, and other kinds could run any code; choose another "
            "model or --revision, or ask its owners to add them."
        )
    if language and not (folder / adapter_file(language)).exists():
        raise IsoglossError(f'{name} ({revision}) has no adapter "{language}"; its page names those that it has.')
    if not (folder / PULLED).exists():
        write_json(folder / PULLED, asdict(Origin(name, revision, folder.name)))
    return folder


@contextmanager
def _one_sentence(name: str, revision: str) -> Iterator[None]:
    """What hinders a download, as an IsoglossError."""
    import httpx2
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.HFValidationError:
        said = f'"{name}" is no name of a model; write it as ORGANISATION/MODEL.'
    except errors.GatedRepoError:
        said = f"{name} is gated: accept its terms on its page, log in with `hf auth login`, and pull it again."
    except errors.RepositoryNotFoundError:
        said = (
            f'There is no model "{name}" on {constants.ENDPOINT}, or it is private; check the name, or log in with '
            "`hf auth login`."
        )
    except errors.RevisionNotFoundError:
        said = f'{name} has no revision "{revision}"; leave out --revision for the newest.'
    except errors.LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
        cache = constants.HF_HUB_CACHE
        said = f"{why}, and {name} ({revision}) is not whole in the cache {cache}; pull it where there is a network."
    except (httpx2.HTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        said = f"The download of {name} broke off ({reason}); run the same command again, it goes on from there."
    else:
        return
    raise IsoglossError(said)


def origin(folder: Path) -> Origin | None:
    """Where a folder was pulled from; None where it was not."""
    return Origin(**read_json(folder / PULLED)) if (folder / PULLED).exists() else None


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a model of isogloss, and not of another toolkit."""
    config = folder / "config.json"
    return config.exists() and isinstance(read_json(config).get("format"), int)
