"""Randomness is addressed, not streamed: every draw has a key that says what it is for."""

import hashlib


def address(seed: int, epoch: int, sample_id: str, view: int) -> int:
    """The 64-bit key of a view's random draws, the same in every process, on every machine.

    Non-negative `view` numbers are views of the sample; negative ones are free for other draws (donors, swaps).
    """
    text = f"{seed}/{epoch}/{view}/{sample_id}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
