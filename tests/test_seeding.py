import hashlib
from itertools import product

from bgsweep.seeding import address


def test_key_is_the_same_everywhere() -> None:
    digest = hashlib.blake2b(b"3/14/1/dress/009b.jpg", digest_size=8).digest()
    assert address(3, 14, "dress/009b.jpg", 1) == sum(byte << 8 * place for place, byte in enumerate(digest))


def test_every_coordinate_counts() -> None:
    names = ["a.jpg", "0/a.jpg", "1/a.jpg", "b/a.jpg"]
    keys = {address(*coordinates) for coordinates in product(range(5), range(5), names, (-1, 0, 1))}
    assert len(keys) == 5 * 5 * len(names) * 3
    assert all(0 <= key < 2**64 for key in keys)
