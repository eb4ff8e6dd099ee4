"""`UserError`, which the command line prints as one line with exit code 2, and removal of secrets from text."""

import contextlib
import re
from collections.abc import Iterator
from functools import lru_cache

# Schemes whose addresses name a container or a user before the @, which is not secret.
_NAMED = ("abfs", "abfss", "gs", "gcs", "hdfs", "viewfs")
_SECRET_OPTION = re.compile(
    r"([?&;][\w.%-]*(?:password|passwd|pwd|token|secret|key|signature|sig|credential)[\w.%-]*=)[^&;\s\"'<>]+",
    re.IGNORECASE,
)
# A password may hold an @, or a slash that does not follow a port; the scheme may be missing.
_ACCOUNT = re.compile(
    r"(?:([\w+.-]+:)?//((?:[^\s/\"'<>@]*:(?!\d{2,5}[/?#])[^\s\"'<>]*|[^\s/\"'<>]*))@)"
    r"|(?<![\w/:.+-])[\w.+-]+:[^\s/@\"'<>]+@(?=[\w\[])"
)

NO_CREDENTIALS = "credentials in an address would be logged; leave them out, and give them by environment variables"


class UserError(Exception):
    """An error the user can fix; the message names the file, key or value and how to fix it."""


def epochs_and_steps(epoch: int, step: int) -> str:
    """A position in training in words, such as ``1 epoch and 20 steps``."""
    return f"{epoch} epoch{'s' * (epoch != 1)} and {step} step{'s' * (step != 1)}"


class Stopped(KeyboardInterrupt):
    """A run has ended on request within an epoch, and can be resumed from there.

    Attributes:
        epoch: epochs that are complete.
        step: steps of the next epoch that are.
        leave: false where the run only writes a checkpoint, and trains on.
    """

    def __init__(self, epoch: int, step: int, leave: bool = True) -> None:
        super().__init__(f"stopped after {epochs_and_steps(epoch, step)}")
        self.epoch, self.step, self.leave = epoch, step, leave


class WorkersFailed(UserError):
    """Processes that train together died or did not start, which may go better another time."""


class UnreadableImage(UserError):
    """An image or mask that is missing, truncated or not an image; it is named, counted and skipped."""


class WrongMask(UnreadableImage):
    """A mask that can be decoded, but does not tell the foreground of its image."""


def without_password(text: str) -> str:
    """Remove secrets from a text with addresses, so that it may be shown, logged and recorded.

    User names and passwords before the host are removed, and values of options such as ``?secret_key=…``.
    """

    def account(found: re.Match[str]) -> str:
        scheme, given = found.groups()
        if given is None:
            return ""
        named = (scheme or "").rstrip(":").lower() in _NAMED and ":" not in given
        return found[0] if named else f"{scheme or ''}//"

    return _SECRET_OPTION.sub(r"\1***", _ACCOUNT.sub(account, text))


def has_password(address: str) -> bool:
    """True if an address holds a secret."""
    return without_password(address) != address


def one_line(error: BaseException) -> str:
    """Another library's error on one line, without secrets."""
    return without_password(" ".join(str(error).split())) or type(error).__name__


def last_line(error: object) -> str:
    """The end of another library's error, which says the cause after a story or a traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


_collected: list[str] | None = None


@lru_cache(maxsize=10_000)
def warn_once(message: str, kept: bool = False) -> None:
    """Log a warning, once for each message and process, or hand it to `collected_warnings`.

    A `kept` one was collected before, perhaps by this process, and is given now.
    """
    if _collected is None:
        import logging  # here: `--help` must not wait for it

        logging.getLogger(__name__).warning("%s", message)
    else:
        _collected.append(message)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect warnings instead of logging them, in a process whose log nobody reads, for the one that started it."""
    global _collected
    before, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = before
