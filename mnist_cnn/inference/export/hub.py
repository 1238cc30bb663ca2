"""Uploading an exported folder to the Hugging Face Hub, when asked to and never otherwise."""

from __future__ import annotations

from pathlib import Path

from mnist_cnn.errors import UsageError


class UploadFailed(Exception):
    """The Hub could not be reached, or refused."""


def check_ready(repository: str) -> None:
    """Find out before the work whether an upload has what it needs on this side.

    Raises:
        UsageError: the repository's name cannot be one, the Hub is switched off, or no token is at
            hand.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"--push-to-hub: {error}") from None
    if constants.HF_HUB_OFFLINE:
        raise UsageError("--push-to-hub: HF_HUB_OFFLINE is set; unset it to upload")
    if not get_token():
        raise UsageError(
            "--push-to-hub: no Hugging Face token is at hand; set HF_TOKEN or run: hf auth login"
        )


def push(folder: Path, repository: str) -> str:
    """Upload every file of the folder as one commit, making the repository where there is none.

    Returns:
        The repository's address.

    Raises:
        UploadFailed: it could not be done, and why.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # The base of every HTTP error, of whichever client this version of the library is built on.
    transport_error: type[Exception] = HfHubHTTPError.__mro__[1]
    try:
        api = HfApi()
        made = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message="The exported model and its card",
        )
    except (OSError, transport_error) as error:
        raise UploadFailed(str(error) or type(error).__name__) from error
    return str(made)
