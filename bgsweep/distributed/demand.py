"""Requests for more nodes, which an autoscaler sees as long as they are pending."""

import time
from collections.abc import Sequence
from typing import Any

from ray.util.placement_group import placement_group_table, remove_placement_group

from bgsweep.distributed.bundles import Resources, reserve

_MOST = 64  # pending at a time; as nodes come, others follow
_SETTLE, _PAUSE = 10.0, 20.0  # seconds


class Demand:
    """Placement groups that are pending because the cluster is too small for them.

    Not `request_resources`, whose requests replace those of every other process, and stay when their process dies: Ray
    adds up placement groups, and removes them together with their driver. A group that is placed is given back at
    once: it has shown that there is room.

    Args:
        bundles: the resources of one group.
        name: of the sweep.
    """

    def __init__(self, bundles: Sequence[Resources], name: str = "bgsweep") -> None:
        self._bundles, self._name = bundles, f"{name}: wanted"
        self._pending: list[Any] = []
        self._nodes, self._grown, self._paused = 0, -_SETTLE, 0.0

    def ask(self, times: int, nodes: int) -> None:
        """Have as many groups pending; to be called every second or so, with the number of nodes."""
        now = time.monotonic()
        if nodes > self._nodes:
            self._grown = now
        self._nodes = nodes
        placed = [group for group in self._pending if placement_group_table(group).get("state") == "CREATED"]
        if placed and now > self._grown + _SETTLE:
            # It is what a trial has left that has just ended. Each pending group would take it for a moment, before the
            # trial that comes next.
            self._paused = now + _PAUSE
        wanted = 0 if now < self._paused else min(times, _MOST)
        keep = [group for group in self._pending if group not in placed][:wanted]
        for group in self._pending:
            if group not in keep:
                remove_placement_group(group)
        self._pending = keep
        while len(self._pending) < wanted:
            self._pending.append(reserve(self._bundles, self._name))

    def close(self) -> None:
        """Withdraw what is pending."""
        for group in self._pending:
            remove_placement_group(group)
        self._pending = []
