"""Uploads an exported folder to the Hugging Face Hub, only when the user asks for it."""

from __future__ import annotations

from pathlib import Path

from mnist_cnn.errors import UsageError


class UploadFailed(Exception):
    """The Hub could not be reached, or refused."""


def check_ready(repository: str) -> None:
    """Check, before the export, what an upload needs on this machine.

    Raises:
        UsageError: the repository's name is not valid, the Hub is switched off, or there is no
            token.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"the repository's name is not valid: {error}") from None
    if constants.HF_HUB_OFFLINE:
        raise UsageError("cannot upload: HF_HUB_OFFLINE is set; unset it")
    if not get_token():
        raise UsageError(
            "cannot upload: there is no Hugging Face token; set HF_TOKEN or run: hf auth login"
        )


def push(folder: Path, repository: str) -> str:
    """Upload every file of the folder as one commit, and create the repository if needed.

    Returns:
        The repository's address.

    Raises:
        UploadFailed: the upload failed; the message says why.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # The base of all HTTP errors, whichever client this version of the library uses.
    transport_error: type[Exception] = HfHubHTTPError.__mro__[1]
    try:
        api = HfApi()
        repository_url = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository_url.repo_id,
            folder_path=folder,
            commit_message="The exported model and its card",
        )
    except (OSError, transport_error) as error:
        raise UploadFailed(str(error) or type(error).__name__) from error
    return str(repository_url)
