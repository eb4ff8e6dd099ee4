import ast
import hashlib
import random
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.seeding import Draw, rng_key, view_key

PACKAGE = Path(__file__).parents[1] / "bgsweep"
WITH_INDEX = {
    Draw.LARGE_VIEW: 2,
    Draw.SMALL_VIEW: 16,
    Draw.CORRUPTION: 100,
    Draw.MASK_VIEW: 20,
    Draw.MASK_ORDER: 20,
    Draw.TRAINING_STEP: 64,
}

# Generators that are not seeded by `rng_key`, and what keeps each apart from every other one.
RAW = {
    ("data/order.py", "[seed, epoch]"): "the order of an epoch of pretraining: the only pair",
    ("training/build.py", "experiment.seed"): "initial weights, drawn by torch",
    ("training/trainer.py", "key"): "a step's own draws, by torch: the key of `Draw.TRAINING_STEP`",
    ("workflows/train_masks.py", "config.seed"): "initial weights, drawn by torch",
    ("evaluation/evaluators/linear.py", "settings.seed"): "the linear probe's order of features, drawn by torch",
    ("augment/background.py", "int(draw * 2 ** 53)"): "pixels of noise, from a view's own draw",
    ("augment/background.py", "negative['seed']"): "the part of another image in a negative, seeded by `swap_keys`",
    ("config/sweep.py", "self.search.seed"): "samples of a space, to check it",
    ("data/datasets/shortcut.py", "seed"): "k-means of OpenCV",
    ("masks/grabcut.py", "0"): "GrabCut of OpenCV",
    ("masks/contact_sheet.py", "0"): "the masks of a row that is drawn, which people look at",
    ("workflows/review_masks.py", "0"): "the masks of a page that are drawn, which people look at",
    ("testing.py", "0"): "initial weights of a test, drawn by torch",
    ("augment/pipeline.py", ""): "seeded by each view's key",
    ("masks/deepusps/augment.py", ""): "seeded by each lesson's key",
    ("evaluation/audit/noise.py", "key"): "an image's noise: the key of `Draw.AUDIT`",
    ("evaluation/audit/layers.py", "0"): "a direction in which a network's layers are looked for, drawn by torch",
    ("evaluation/audit/groups.py", "seed"): "k-means of SciPy",
    ("models/counterparts.py", "0"): "images on which two networks are compared",
    ("workflows/export.py", "0"): "images on which an exported encoder is compared",
    ("report/statistics.py", "0"): "resamplings of a page's trials",
    ("report/effects.py", "0"): "resamplings of the same trials",
    ("sweep/cost.py", "seed"): "a simulation",
    ("sweep/pbt.py", "f'{self.file.search.seed} {epoch} {trial_name(trial)}'"): "a text, not a number",
    ("sweep/searchers/gaussian.py", "f'{self.config.search.seed} {trial}'"): "a text, not a number",
}
GENERATORS = {"default_rng", "Random", "manual_seed", "RandomState", "SeedSequence", "setRNGSeed"}


def test_key_is_the_same_everywhere() -> None:
    digest = hashlib.blake2b(b"3/14/1/dress/009b.jpg", digest_size=8).digest()
    assert view_key(3, 14, "dress/009b.jpg", 1) == int.from_bytes(digest, "little")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("7/0/-1/shortcut/a.jpg", rng_key(7, 0, "a.jpg", Draw.SHORTCUT)),
        ("7/0/-1/mask_noise/a.jpg", rng_key(7, 0, "a.jpg", Draw.MASK_NOISE)),
        ("7/3/2/torch", rng_key(7, 3, "", Draw.TRAINING_STEP, 2)),
        ("7/1/5/a.jpg", rng_key(7, 1, "a.jpg", Draw.MIXED_RAND)),
        ("7/0/-103/a.jpg", rng_key(7, 0, "a.jpg", Draw.CORRUPTION, 3)),
    ],
)
def test_keys_that_published_results_depend_on(text: str, key: int) -> None:
    assert key == int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def test_no_two_draws_have_one_key() -> None:
    """Of all kinds, with ids that try to look like other kinds' keys."""
    ids = ["a.jpg", "0/a.jpg", "-1/a.jpg", "shortcut/a.jpg", "mask_noise/a.jpg", "torch/a.jpg", "1/shortcut/a.jpg"]
    kinds = [(kind, index) for kind in Draw for index in range(WITH_INDEX.get(kind, 1))]
    made = [rng_key(*at, kind, index) for at in product(range(3), range(3), ids) for kind, index in kinds]
    assert len(set(made)) == len(made) == 9 * len(ids) * len(kinds)
    assert all(0 <= key < 2**64 for key in made)


def test_no_two_kinds_of_draw_are_correlated() -> None:
    """Neither the keys nor the first numbers of the generators that they seed, on the ids of the embedded images."""
    ids = [f"{split}/{name}" for split in ("train", "validation", "test") for name in EmbeddedSample(split).ids]
    at = [(seed, epoch, name) for seed in range(2) for epoch in range(2) for name in ids]
    keys = [np.array([rng_key(*one, kind) for one in at], np.uint64) for kind in Draw]
    keys += [np.array([view_key(*one, view) for one in at], np.uint64) for view in (1, 3)]
    shares = np.array([key / 2**64 for key in keys])
    firsts = np.array([[random.Random(int(key)).random() for key in row] for row in keys])
    orders = np.array([row % np.uint64(31) for row in keys])
    for values in (shares, firsts, np.concatenate([shares, firsts]), np.concatenate([orders, firsts])):
        found = np.abs(np.corrcoef(values)[np.triu_indices(len(values), 1)])
        assert found.max() < 5.5 / len(at) ** 0.5
    for one, other in combinations(shares, 2):  # both rare: what a hold-out and a swap with one key would show
        assert abs(((one < 0.1) & (other < 0.1)).mean() - 0.01) < 5.5 * (0.01 / len(at)) ** 0.5


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield file.relative_to(PACKAGE).as_posix(), node


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_kinds_are_named_nowhere_but_in_the_list() -> None:
    for file, call in calls():
        if name_of(call) == "rng_key" and file != "seeding.py":
            assert ast.unparse(call.args[3]).startswith("Draw.") or ast.unparse(call.args[3]) == "kind", file
        assert name_of(call) != "blake2b" or file == "seeding.py", f"{file} makes a key of its own"


def test_every_generator_is_seeded_by_a_key() -> None:
    """Or listed above with the reason why nothing else draws the same."""
    raw = set()
    for file, call in calls():
        if name_of(call) in GENERATORS:
            seed = ", ".join(map(ast.unparse, call.args))
            if "rng_key(" not in seed and "view_key(" not in seed:
                raw.add((file, seed))
    assert raw == RAW.keys()
