"""Checkpoints by path, by name on the Hugging Face hub, and back onto it. Only data files are fetched, never code."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from dimoo.core.errors import CheckpointError

MINI = Path(__file__).parents[1] / "assets" / "mini"
DATA = ("*.json", "*.jinja", "*.safetensors", "*.md")
"""What is downloaded: weights, configs, tokenizers. No pickles, no Python files."""
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def resolve(path: str | Path, *, revision: str | None = None) -> Path:
    """A checkpoint folder: "mini" is the bundled one, else a folder on disk, else `owner/name[@revision]` on the hub.

    The hub's own cache is used; with HF_HUB_OFFLINE=1 nothing but the cache is.

    Raises:
        CheckpointError: there is no such folder, and no such repository or revision, or the hub cannot be reached.
    """
    if str(path) == "mini":
        return MINI
    if Path(path).is_dir():
        return Path(path)
    if isinstance(path, str) and _HUB_ID.fullmatch(path):
        name, _, own = path.partition("@")
        return download(name, revision=own or revision)
    raise CheckpointError(
        f'no checkpoint folder at {str(path)!r}; give a folder, "mini" for the bundled model, or owner/name on the hub'
    )


def download(name: str, *, revision: str | None = None) -> Path:
    """The local snapshot of a hub repository, downloaded where the cache lacks it.

    Raises:
        CheckpointError: no such repository or revision, no access to it, or no way to the hub.
    """
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(DATA)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{name!r} is no folder here and not in the hub's cache, and the hub cannot be reached:"
            f" {_first_line(error)}; check the spelling and the connection, or unset HF_HUB_OFFLINE"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise CheckpointError(
            f"cannot get {name!r}{at} from the hub: {_first_line(error)};"
            " check the name, or log in with `hf auth login`"
        ) from error


def upload(folder: Path, name: str, *, private: bool = True, message: str = "Upload with dimoo") -> str:
    """Put a checkpoint folder onto the hub as `owner/name`, a repository made where it is absent; returns its address.

    Raises:
        CheckpointError: not logged in, no right to write there, or no way to the hub.
    """
    try:
        api = HfApi()
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(
            f"cannot push to {name!r}: {_first_line(error)}; log in with `hf auth login` and check the name"
        ) from error
    return address


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
