"""Uploads an exported folder to the Hugging Face Hub, only when the user asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mnist_cnn.child_processes import run_child
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.escaping import shortened

UPLOAD_SECONDS = 300.0
"""Longest time for a whole upload; a model and its card have less than 1 MB."""
_MESSAGE_LETTERS = 600
"""Longest message of the library."""


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


def push(folder: Path, repository: str, timeout_seconds: float = UPLOAD_SECONDS) -> str:
    """Upload every file of the folder as one commit, and create the repository if needed.

    A child process does it: the library's own limits are of single requests, and start again with
    every byte.

    Returns:
        The repository's address.

    Raises:
        UploadFailed: the upload failed or took too long; the message says why.
    """
    # The package may have been found by the current folder alone.
    path = [str(Path(__file__).parents[3]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    try:
        finished = run_child(
            [sys.executable, "-m", __name__, str(folder), repository],
            environment={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            timeout_seconds=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        raise UploadFailed(f"it was not done within {timeout_seconds:g} s") from None
    except OSError as error:
        raise UploadFailed(f"no process could be started: {reason_of(error)}") from error
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise UploadFailed(shortened(lines[-1], _MESSAGE_LETTERS))
    return finished.stdout.strip().splitlines()[-1]


def _upload(folder: str, repository: str) -> int:
    """In the child: upload and print the address, or print the reason on stderr in one line."""
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
        print(" ".join((str(error) or type(error).__name__).split()), file=sys.stderr)
        return 1
    print(repository_url)
    return 0


if __name__ == "__main__":
    sys.exit(_upload(*sys.argv[1:]))
