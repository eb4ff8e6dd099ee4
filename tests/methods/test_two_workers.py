"""Two gloo workers with half the batch each do what one worker does with the whole batch."""

from typing import Any

import pytest

from bgsweep.testing import differences_of_two_workers, two_and_one

MOCO = {"name": "moco_v2", "queue_size": 32, "hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9}
BYOL = {"name": "byol", "hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9}
LARS = ["optimizer={name: lars, trust: 0.1, lr: 0.02}"]
SWAV = {"name": "swav", "prototypes": 12, "hidden_dim": 16, "embedding_dim": 8, "freeze_prototypes": 1}
SIMCLR = {"name": "simclr", "hidden_dim": 16, "embedding_dim": 8}
VICREG = {"name": "vicreg", "hidden_dim": 16, "embedding_dim": 8}
DINO = {"name": "dino", "prototypes": 12, "hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9, "batch_norm": True}
ADAMW = ["optimizer={name: adamw, lr: 0.001, weight_decay: {from: 0.1, to: 0.5}, clip_norm: 0.1}"]
PLAIN = ["background={}"]
PARTS = ["training.accumulate=2"]
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "moco_v2": (MOCO, PLAIN),
    "moco_v2 symmetric": ({**MOCO, "symmetric": True, "split_bn": 2}, []),
    "moco_v2 in parts": (MOCO, PARTS),
    "byol": (BYOL, LARS),
    "byol in parts": (BYOL, [*LARS, *PARTS]),
    "swav": (SWAV, []),
    "swav with queue": ({**SWAV, "queue_size": 16, "queue_start": 0}, []),
    "simclr": (SIMCLR, PLAIN),
    "simclr with swaps in parts": (SIMCLR, PARTS),
    "vicreg": (VICREG, []),
    "vicreg in parts": (VICREG, PARTS),
    "dino": (DINO, ADAMW),
    "dino in parts": (DINO, [*ADAMW, *PARTS]),
    "supervised": ({"name": "supervised"}, []),
}


@pytest.fixture(scope="module")
def differences() -> dict[str, list[str]]:
    """The tensors and losses that differ in each case."""
    return differences_of_two_workers({name: two_and_one(*case) for name, case in CASES.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_same_losses_and_same_weights(differences: dict[str, list[str]], name: str) -> None:
    assert differences[name] == []
