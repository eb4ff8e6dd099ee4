import numpy as np
import pytest
import torch

from bgsweep.config import Encoder, MaskTraining
from bgsweep.errors import UserError
from bgsweep.masks.deepusps.selftraining import SelfTraining
from bgsweep.models import build_encoder

CONFIG = MaskTraining(
    side=32,
    rounds=1,
    epochs=8,
    student_epochs=16,
    batch_size=8,
    lr=3e-3,
    encoder=Encoder(name="resnet10", width=16),
    device="cpu",
)


def _scenes(count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Reddish discs on bluish noise, and where they are."""
    draws = np.random.default_rng(0)
    rows, columns = np.indices((32, 32))
    centers, radii = draws.uniform(8, 24, (count, 2)), draws.uniform(4, 9, count)
    truth = np.stack([np.hypot(rows - y, columns - x) < r for (y, x), r in zip(centers, radii, strict=True)])
    pictures = draws.integers(40, 120, (count, 32, 32, 3))
    pictures[..., 2] += 60
    pictures[truth] += np.array([100, 20, -70])
    return pictures.clip(0, 255).astype(np.uint8), truth


def _iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float(((found & truth).sum(axis=(1, 2)) / (found | truth).sum(axis=(1, 2))).mean())


def _training(config: MaskTraining, count: int = 64) -> tuple[SelfTraining, dict[str, np.ndarray], np.ndarray]:
    """Two methods, each quite wrong on a third of the images."""
    pictures, truth = _scenes(count)
    draws = np.random.default_rng(1)
    masks = {}
    for name in ("one", "other"):
        wrong = draws.random(count) < 0.35
        masks[name] = np.where(wrong[:, None, None], np.roll(truth, 13, axis=2), truth).astype(np.uint8) * 255
    torch.manual_seed(0)
    return SelfTraining(config, build_encoder(config.encoder, [32]).backbone, pictures, masks), masks, truth


def test_rounds_and_the_student_mend_what_the_methods_got_wrong() -> None:
    training, masks, truth = _training(CONFIG)
    while training.stages[training.stage].method:
        training.step_epoch()
    given = [_iou(mask > 127, truth) for mask in masks.values()]
    refined = [_iou(mask, truth) for mask in training.foregrounds.values()]
    assert min(refined) > max(given) + 0.05, (given, refined)
    while not training.finished:
        training.step_epoch()
    pictures, _ = _scenes()
    found = np.stack([training.predict(picture) for picture in pictures])
    assert _iou(found > 0.5, truth) > max(given) + 0.05


def test_a_restored_training_gives_the_same_student() -> None:
    config = CONFIG.model_copy(update={"rounds": 1, "epochs": 2, "student_epochs": 1})
    whole, _, _ = _training(config, 16)
    while not whole.finished:
        whole.step_epoch()
    training, _, _ = _training(config, 16)
    while not training.finished:
        training.step_epoch()
        if not training.finished:
            state = training.state_dict()
            training, _, _ = _training(config, 16)
            training.load_state_dict(state)
    for one, other in zip(whole.network.parameters(), training.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_network_starts_from_the_same_encoder() -> None:
    config = CONFIG.model_copy(update={"rounds": 1, "epochs": 1, "student_epochs": 1})
    training, _, _ = _training(config, 16)
    first = {name: weight.clone() for name, weight in training.network.state_dict().items()}
    training.step_epoch()
    assert training.stages[training.stage].method == "other"
    assert all(torch.equal(first[name], weight) for name, weight in training.network.state_dict().items())


def test_a_gpu_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    with pytest.raises(UserError, match="torch finds no GPU"):
        _training(CONFIG.model_copy(update={"device": "cuda"}), 16)
