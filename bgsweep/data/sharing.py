"""The sweep and trial of this process, which decide what it shares with others on the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sharing:
    """Processes of the same sweep share decoded images (`data.cache`) and, where they do so, finished views.

    Attributes:
        sweep: unique in all the machine's users and time.
        trial: name of the trial.
        views: finished views are shared too (`search.share_views`).
    """

    sweep: str
    trial: str = ""
    views: bool = False


_within: Sharing | None = None


def share_within(within: Sharing | None) -> None:
    """Say what this process is part of; None: of no sweep, so that only the processes of its own run share."""
    global _within
    _within = within


def sharing() -> Sharing | None:
    """The sweep and trial of this process."""
    return _within
