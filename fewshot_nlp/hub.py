"""Model folders to and from the Hugging Face Hub."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from fewshot_nlp.errors import FewShotError

CONFIG = "fewshot_nlp.json"


def download_model_folder(repo_id: str, revision: str | None = None) -> Path | None:
    """Folder of a Hub model that this package wrote; None when the repository is no such model or not to be had."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        hf_hub_download(repo_id, CONFIG, revision=revision)
        return Path(snapshot_download(repo_id, revision=revision))
    except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None


def push_folder(
    write: Callable[[Path], object], repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Uploads the folder that ``write`` fills; returns the address of the commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / repo_id.split("/")[-1]
        write(folder)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload model"))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise FewShotError(f"{repo_id} could not be uploaded: {str(error).strip().splitlines()[0]}") from error
