"""Checkpoints by path, by name on the Hugging Face hub, and back onto it. Only data files are fetched, never code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from dimoo.core.errors import CheckpointError

MINI = Path(__file__).parents[1] / "assets" / "mini"
DATA = ("*.json", "*.jinja", "*.safetensors", "*.md")
"""What is downloaded of a model: weights, configs, tokenizers. No pickles, no Python files."""
REPLACED = ("*.safetensors", "*.index.json", "*.jinja", "tokenizer*.json", "vqvae/*", "image_tokenizer/*")
"""What a new upload removes of an older one: a file left over could be taken for a part of the new model."""
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def resolve(path: str | Path, *, revision: str | None = None, patterns: Sequence[str] = DATA) -> Path:
    """A checkpoint folder: "mini" is the bundled one, else a folder on disk, else `owner/name[@revision]` on the hub.

    The hub's own cache is used; with HF_HUB_OFFLINE=1 nothing but the cache is. A `Path` is always a path.

    Args:
        path: which one.
        revision: a branch, tag or commit on the hub.
        patterns: what to download of a repository.

    Raises:
        CheckpointError: there is no such folder, and no such repository or revision, or the hub cannot be reached; or
            a revision of a folder is asked for, or two of them.
    """
    if not isinstance(path, str | Path):
        raise CheckpointError(f'a checkpoint is a folder, "mini" or owner/name on the hub, not {path!r}')
    given = Path(path)
    if isinstance(path, str) and path != "mini" and not given.exists() and _HUB_ID.fullmatch(path):
        name, _, own = path.partition("@")
        if own and revision and own != revision:
            raise CheckpointError(f"{path!r} and revision={revision!r} name two revisions; give one")
        return download(name, revision=own or revision, patterns=patterns)
    if revision is not None:
        raise CheckpointError(f"{str(path)!r} is no repository on the hub: leave out revision={revision!r}")
    if path == "mini":
        return MINI
    if given.is_file():
        raise CheckpointError(f"{str(path)!r} is a file; give the folder that the checkpoint's files are in")
    if not given.is_dir():
        raise CheckpointError(
            f'no checkpoint folder at {str(path)!r}; give a folder, "mini" for the bundled model, or owner/name on the'
            " hub"
        )
    if (given / "export" / "config.json").is_file() and not (given / "config.json").exists():
        raise CheckpointError(f"{str(path)!r} is the folder of a run; give what it exported: {str(given / 'export')!r}")
    return given


def download(name: str, *, revision: str | None = None, patterns: Sequence[str] = DATA) -> Path:
    """The local snapshot of a hub repository, downloaded where the cache lacks it.

    Raises:
        CheckpointError: no such repository or revision, no access to it, no way to the hub, or no room on the disk.
    """
    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{name!r} is no folder here and{at} not in the hub's cache, and the hub cannot be reached:"
            f" {_first_line(error)}; check the spelling and the connection, or unset HF_HUB_OFFLINE"
        ) from error
    except Exception as error:  # its own errors, and whatever its HTTP library and the disk raise
        raise CheckpointError(
            f"cannot get {name!r}{at} from the hub: {_first_line(error)};"
            " check the name, the connection and the disk, or log in with `hf auth login`"
        ) from error


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Put a checkpoint folder onto the hub as `owner/name`, a repository made where it is absent; returns its address.

    What an older upload left of weights and tokenizers is removed in the same commit; other files stay.

    Raises:
        CheckpointError: not logged in, no right to write there, or no way to the hub.
    """
    try:
        api = HfApi()
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Upload with dimoo", delete_patterns=list(REPLACED)
        )
    except Exception as error:  # as in `download`
        raise CheckpointError(
            f"cannot push to {name!r}: {_first_line(error)}; check the name and the connection, and log in with"
            " `hf auth login`"
        ) from error
    return address


def repository(folder: Path) -> str | None:
    """The name of the hub repository that a folder of its cache is a snapshot of, None for any other folder.

    Such folders are .../models--owner--name/snapshots/commit.
    """
    whole = folder.resolve()
    home = whole.parent.parent.name
    return home.split("--", 2)[-1] if whole.parent.name == "snapshots" and home.startswith("models--") else None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
