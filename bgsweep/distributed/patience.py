"""Requests that are repeated while the connection to a cluster is lost."""

import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

_MINUTES, _PAUSE = 10.0, 5.0  # minutes in all; seconds between two tries
_GATEWAY = re.compile("status code 50[234]")  # a proxy's answer in place of the cluster's, in Ray's words
_Answer = TypeVar("_Answer")


def patiently(ask: Callable[[], _Answer], address: str) -> _Answer:
    """Call ``ask``, again for ten minutes where it cannot connect, which a line says; give its answer."""
    lost: float | None = None
    while True:
        try:
            return ask()
        except Exception as error:
            now = time.monotonic()
            if not lost_connection(error) or (lost is not None and now - lost > 60 * _MINUTES):
                raise
            if lost is None:
                lost = now
                print(
                    f"the connection to Ray at {address} is lost; what was submitted goes on there; this command tries "
                    f"again for {_MINUTES:g} minutes",
                    file=sys.stderr,
                    flush=True,
                )
        time.sleep(_PAUSE)


def lost_connection(error: Exception) -> bool:
    """True if Ray's job client raised this because it could not reach the cluster."""
    from aiohttp import ClientError

    return isinstance(error, (OSError, ClientError)) or _GATEWAY.search(str(error)) is not None
