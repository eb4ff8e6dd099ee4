"""The layout of a store: the folder of each run and sweep, and where in it the checkpoints are.

Under the store's folder or URI::

    pretrain/DIGEST/run.json                                   the experiment, and fingerprints of its images
    pretrain/DIGEST/state.pt                                   one worker
    pretrain/DIGEST/checkpoint_TIME/state.pt                   several workers: Ray Train names the folder
    weights/DIGEST/encoder.safetensors                         weights that runs start from
    sweeps/NAME/tune-TIME-N/tNN/checkpoint_NNNNNN/state.pt       a trial of one worker: Ray Tune names the folder
    sweeps/NAME/ray_train/tNN-DIGEST/checkpoint_TIME/state.pt  a trial of several workers
    sweeps/NAME/taken_over/EPOCH/tNN/state.pt                  pbt: copies of what trials continue from

DIGEST is that of the experiment's settings. A checkpoint is the folder that holds ``state.pt``; with several seeds that
file is the first seed's, and ``seed_N/state.pt`` in the same folder is that of seed N.

The module is apart from `bgsweep.training.checkpoint` because a sweep's driver needs it without importing torch.
"""

import os
import time
from pathlib import Path

from bgsweep.errors import NO_CREDENTIALS, UserError, has_password, without_password
from bgsweep.storage.uri import Uri, filesystem, is_remote, join, list_remote

DEFAULT_STORE = "bgsweep_runs"
CHECKPOINT_FILE = "state.pt"
RUN_FILE = "run.json"


def parse_store(text: str) -> Uri:
    """A store as given by `--store`: a folder, or a URI without credentials."""
    if "://" not in text:
        return Path(text).expanduser()
    if has_password(text):
        raise UserError(f"--store {without_password(text)}: {NO_CREDENTIALS}")
    return text


def checked_store(given: str | Path | None) -> Uri:
    """The store that is named, else $BGSWEEP_STORE, else the default folder.

    Raises:
        UserError: it is something else than a folder, or its address holds credentials.
    """
    store = parse_store(str(given or os.environ.get("BGSWEEP_STORE") or DEFAULT_STORE))
    if isinstance(store, Path):
        try:
            taken = store.exists() and not store.is_dir()
        except (OSError, ValueError) as error:  # too long, a loop of links, a NUL
            raise UserError(
                f"--store {store}: {getattr(error, 'strerror', None) or error}; name another folder"
            ) from error
        if taken:
            raise UserError(f"--store {store}: not a folder; name the folder of the store")
    return store


def checked_folder(given: str | Path | None) -> Path:
    """As `checked_store`, for what cannot write to a URI."""
    store = checked_store(given)
    if not isinstance(store, Path):
        raise UserError(f"--store {store}: only sweeps can write to a URI; name a folder")
    return store


def checkpoint_file(path: Path) -> Path:
    """The file of a checkpoint that is given as a file or as its folder."""
    return path / CHECKPOINT_FILE if path.is_dir() else path


def still_there(checkpoint: Uri) -> Uri | None:
    """A trial's checkpoint, or, where it is gone, the oldest one beside it; None if there is none.

    Tune removes a checkpoint once it has the next one. Where the driver's machine dies before the journal knows of the
    next one, that alone is there.

    Raises:
        UserError: the store cannot be read.
    """
    folder, _, own = str(checkpoint).rpartition("/")
    if is_remote(folder):
        names = [entry.name for entry in list_remote(folder, *filesystem(folder), recursive=False)]
    else:
        names = sorted(path.name for path in Path(folder).iterdir()) if Path(folder).is_dir() else []
    if own in names:
        return checkpoint
    left = [name for name in names if name.startswith("checkpoint_")]
    return join(folder, left[0]) if left else None


def seed_checkpoints(checkpoint: Uri, first: int, seeds: int) -> list[Uri]:
    """The checkpoint of each seed, from the ``first`` on, in the checkpoint of all of them."""
    return [checkpoint, *(join(checkpoint, f"seed_{seed}") for seed in range(first + 1, first + seeds))]


def pretrain_folder(store: Path, digest: str) -> Path:
    """The folder of an experiment trained outside of a sweep."""
    return store.absolute() / "pretrain" / digest


def sweep_folder(store: Uri, name: str) -> Uri:
    """The folder of a sweep."""
    return join(store, "sweeps", name)


def weights_folder(store: Uri, digest: str) -> Uri:
    """The folder of weights that runs start from, by their own digest."""
    return join(store, "weights", digest)


def tune_name(token: int = 0) -> str:
    """The name of Ray Tune's folder within a sweep's folder.

    Each driver of a sweep has its own folder, named by the token of its claim, so that a resumed sweep does not
    overwrite a checkpoint that it continues from.
    """
    return f"tune-{time.strftime('%Y%m%d-%H%M%S')}-{token}"


def ray_train_folder(sweep: Uri, trial: str, digest: str, checkpoint: Uri | None = None) -> Uri:
    """The folder of a trial that Ray Train runs.

    It is named by the trial's name as well as by its values (the digest), since two trials may have the same values. A
    resumed trial finds its folder by its last ``checkpoint``: older versions named folders by the values alone. One
    that Ray Train has not written is of a trial that had one worker.
    """
    if checkpoint and by_ray_train(checkpoint):
        return str(checkpoint).rpartition("/")[0]
    return join(sweep, "ray_train", f"{trial}-{digest}")


def ray_train_run(folder: Uri) -> tuple[str, str]:
    """The storage path and the name of Ray Train's run in a folder; that of a trial has its sweep's name, too.

    Ray's metrics and logs show the name.
    """
    parts = str(folder).split("/")
    own = 3 if parts[-2:-1] == ["ray_train"] else 1
    return "/".join(parts[:-own]), "/".join(parts[-own:])


def by_ray_train(checkpoint: Uri) -> bool:
    """True if Ray Train wrote a trial's checkpoint."""
    return str(checkpoint).split("/")[-3:-2] == ["ray_train"]


def exchange_folder(sweep: Path, epoch: int) -> Path:
    """The folder for copies of the checkpoints that trials of a population copy at an epoch."""
    return sweep / "taken_over" / str(epoch)
