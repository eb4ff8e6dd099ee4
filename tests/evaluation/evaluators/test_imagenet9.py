"""ImageNet-9 and the challenge against the slow way, on a tree that `backgrounds make` wrote of real images."""

import json
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from bgsweep.cli.main import main
from bgsweep.config import Evaluate, Preprocessing, Sets, SuiteConfig
from bgsweep.data import Splits
from bgsweep.data.datasets.folder import Folder
from bgsweep.errors import UserError
from bgsweep.evaluation.classifier import user_head
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluators.backgrounds_challenge import robust
from bgsweep.evaluation.evaluators.imagenet9 import RELEASED, read_mapping, release_sheet
from bgsweep.evaluation.evaluators.linear import linear_head
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.registry import run_evaluators
from bgsweep.tracking import Tracker
from tests.evaluation.conftest import colours
from tests.evaluation.subjects import subject

SIZE = 32


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> Path:
    """Thirty images of the embedded sample as folders, their variants in the release's layout, and a mapping."""
    place = tmp_path_factory.mktemp("in9")
    for index in range(0, len(splits.test), 20):
        for sample in (splits.test[index + offset] for offset in range(3)):
            image, mask = place / "images" / sample.id, place / "masks" / sample.id
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            assert sample.mask is not None
            cv2.imwrite(str(image.with_suffix(".png")), sample.image[..., ::-1])
            cv2.imwrite(str(mask.with_suffix(".png")), sample.mask)
    arguments = ["backgrounds", "make", "images", "masks", "--out", "in9", "--size", str(SIZE)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(arguments) == 0
    # As in the real mapping some classes of ImageNet belong to none.
    mapping = {str(label): label % 12 if label % 12 < 10 else -1 for label in range(1000)}
    (place / "map.json").write_text(json.dumps(mapping), encoding="utf-8")
    return place


def examination(tree: Path, batch_size: int = 256, threads: int = 4, who: FrozenModel | None = None) -> EvalContext:
    sets = Sets(imagenet9=str(tree / "in9"), in_to_in9=str(tree / "map.json"))
    file = SuiteConfig(sets=sets, evaluate=Evaluate(batch_size=batch_size), threads=threads)
    return EvalContext(who or subject(), file, None)


def predict(who: FrozenModel, pictures: np.ndarray, mapping: dict[str, int]) -> int:
    assert who.head is not None
    logits = who.head(who.encode(torch.from_numpy(pictures)[None]))
    return mapping[str(int(logits.argmax()))]


def test_the_eight_variants_equal_the_slow_way(tree: Path) -> None:
    who, mapping = subject(), json.loads((tree / "map.json").read_text(encoding="utf-8"))
    (result,) = run_evaluators(examination(tree), ["imagenet9"])
    values = {one.name: one.value for one in result.values}
    for name in RELEASED:
        right = [
            predict(who, np.array(PIL.Image.open(path).convert("RGB")), mapping) == label
            for label, folder in enumerate(sorted((tree / "in9" / name / "val").iterdir()))
            for path in folder.iterdir()
        ]
        assert values[name] == pytest.approx(np.mean(right))
        assert len(right) == 30
    assert values["bg_gap"] == pytest.approx(values["mixed_same"] - values["mixed_rand"])
    assert 0 < values["original"] < 0.5
    assert "-1 is wrong" in result.protocol["prediction"]
    sheet = release_sheet(result.listings, values)
    assert sheet.shape == (2 * 20 + 28 + 4 * 156 - 8, 2 * 20 + 8 * 136 - 8, 3)
    first = next((tree / "in9" / "original" / "val").glob("*"))
    shown = cv2.resize(cv2.imread(str(sorted(first.parent.rglob("*.JPEG"))[0])), (128, 128), interpolation=0)
    np.testing.assert_allclose(sheet[48:176, 20:148, ::-1].astype(int), shown, atol=8)


def test_nine_class_heads_need_no_mapping(tree: Path) -> None:
    """As `--in9` in the authors' code: the model's own head of these classes, or a probe on images of these classes."""
    root, plain = tree / "in9", subject()
    sets = SuiteConfig(sets=Sets(imagenet9=str(root)), size=SIZE, preprocessing=Preprocessing(resize=SIZE, crop=SIZE))
    torch.manual_seed(0)
    own = torch.nn.Linear(48, 10)
    train = Folder(root / "original" / "val", ".")
    for who, splits in (
        (FrozenModel(colours, plain.network, plain.device, own), None),
        (FrozenModel(colours, plain.network, plain.device), Splits(train, train, train)),
    ):
        context = EvalContext(who, sets, splits)
        both = run_evaluators(context, ["imagenet9", "imagenet9_challenge"])
        values = {one.name: one.value for result in both for one in result.values}
        head = own if splits is None else user_head(context)[0]
        paths = sorted((root / "mixed_rand" / "val").rglob("*.JPEG"))
        images = torch.from_numpy(np.stack([np.array(PIL.Image.open(path)) for path in paths]))
        right = head(colours(images)).argmax(dim=1) == torch.tensor([int(path.parent.name[:2]) for path in paths])
        assert values["mixed_rand"] == pytest.approx(right.double().mean().item())
        assert both[0].protocol["prediction"] == both[1].protocol["prediction"] == "arg-max over 10 classes"
    assert values["original"] > 0.9  # what it was trained on
    with pytest.raises(UserError, match="this encoder has no classifier"):
        run_evaluators(EvalContext(FrozenModel(colours, plain.network, plain.device), sets, None), ["imagenet9"])


def test_the_challenge_equals_trying_every_background_alone(tree: Path) -> None:
    mapping = json.loads((tree / "map.json").read_text(encoding="utf-8"))
    # A classifier that nearly always says the same class, so that some foregrounds hold out and some do not.
    weight = 4 * torch.randn(48, 1000, generator=torch.Generator().manual_seed(3))
    bias = torch.zeros(1000)
    bias[13] = 7.0
    plain = subject()
    who = FrozenModel(colours, plain.network, plain.device, lambda features: (features - 0.5) @ weight + bias)
    held = []
    in9 = tree / "in9"
    behind = [np.array(PIL.Image.open(path)) for path in sorted((in9 / "only_bg_t" / "val").rglob("*.JPEG"))]
    for path in sorted((in9 / "original" / "val").rglob("*.JPEG")):
        mask = np.load(in9 / "fg_mask" / "val" / path.parent.name / f"{path.stem}.npy")[:, :, None]
        image, label = np.array(PIL.Image.open(path)), int(path.parent.name[:2])
        held.append(all(predict(who, bg * (1 - mask) + mask * image, mapping) == label for bg in behind))
    for batch_size, threads in ((16, 1), (256, 4), (7, 2)):
        (result,) = run_evaluators(examination(tree, batch_size, threads, who), ["imagenet9_challenge"])
        assert result.values[0].hits.tolist() == held
    assert 0 < sum(held) < len(held)
    assert result.protocol["backgrounds_for_each"] == 30


def test_a_foreground_leaves_at_its_first_failure() -> None:
    seen = []

    def classify(pictures: np.ndarray) -> np.ndarray:
        seen.append(len(pictures))
        return np.where(pictures[:, 0, 0, 0] >= 100, 1, 0)

    fronts = [np.zeros((2, 2, 3), np.uint8)] * 4
    shows = np.full((2, 2), 255, np.uint8)
    behind = [np.full((2, 2, 3), level, np.uint8) for level in (200, *[0] * 99)]
    labels = np.array([1, 0, 0, 0])
    held = robust(lambda number: (fronts[number], shows), labels, behind, classify, 4)
    assert held.tolist() == [False] * 4
    assert sum(seen) == 4 + 4  # all four on the first background; the one that is left, four at once


def test_the_released_mapping(shared_data: Path) -> None:
    mapping = read_mapping(shared_data / "eval_labels" / "in_to_in9.json")
    assert (mapping == -1).sum() == 630
    assert np.bincount(mapping[mapping >= 0]).tolist() == [116, 52, 42, 36, 35, 27, 26, 20, 16]


def test_mixed_names_tell_the_backgrounds_class(tree: Path) -> None:
    manifest = json.loads((tree / "in9" / "backgrounds.json").read_text(encoding="utf-8"))
    for name, donor in manifest["backgrounds"].items():
        variant, _, folder, file = name.split("/")
        own, other = int(folder[:2]), int(file.rpartition("_bg_")[2][:2])
        assert manifest["classes"][other] == donor.split("/")[0]
        if variant == "mixed_rand":
            assert own != other
        else:
            assert other == (own if variant == "mixed_same" else (own + 1) % 10)
    assert manifest["images_per_variant"] == 30 and manifest["digests"].keys() == {"images", "masks"}


def test_what_is_missing_is_said_in_one_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = EvalContext(subject(), SuiteConfig(), None)
    with pytest.raises(
        UserError, match=r"imagenet9 is not set; download backgrounds_challenge_data\.tar\.gz \(32,400 images"
    ):
        run_evaluators(context, ["imagenet9"])
    bare = EvalContext(FrozenModel(colours, subject().network, torch.device("cpu")), examination(tree).config, None)
    with pytest.raises(UserError, match="no classifier of ImageNet's 1000 classes"):
        run_evaluators(bare, ["imagenet9"])
    (tmp_path / "in9").mkdir()
    sets = Sets(imagenet9=str(tmp_path / "in9"), in_to_in9=str(tree / "map.json"))
    with pytest.raises(UserError, match="original/val: no such folder; unpack"):
        run_evaluators(EvalContext(subject(), SuiteConfig(sets=sets), None), ["imagenet9"])
    again = ["backgrounds", "make", str(tree / "images"), str(tree / "masks"), "--out", str(tree / "in9")]
    assert main(again) == 2
    assert "in9: already there" in capsys.readouterr().err


def test_the_challenge_of_ones_own_images(splits: Splits) -> None:
    held = []
    for batch_size in (16, 256):
        settings = Evaluate(batch_size=batch_size)
        context = EvalContext(subject(), SuiteConfig(size=SIZE, evaluate=settings), splits)
        (result,) = run_evaluators(context, ["challenge"])
        held.append(result.values[0].hits.tolist())
    assert held[0] == held[1]
    variants, label_of = context.features.variants(), context.features.source.labels
    plate = variants.image("only_bg_t", variants.usable[5])
    front, shows = variants.cutout(variants.usable[0])
    one = np.rint(plate * (shows[:, :, None] / 255)).astype(int) + front
    predicted = linear_head(context).predict(colours(torch.from_numpy(np.minimum(one, 255).astype(np.uint8))[None]))
    if int(predicted) != label_of[variants.usable[0]]:
        assert not held[0][0]


@pytest.mark.slow
def test_a_real_classifier_on_variants_of_real_images(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shirts and shoes are found among 1000 classes with or without their background, which alone gives nothing."""
    from tests.evaluation.efficientnet import write_weights

    weights = write_weights(tmp_path / "weights.pth")
    for kind in ("images", "masks"):
        for name in ("shoes", "t-shirt"):
            (tmp_path / kind / name).mkdir(parents=True)
            for path in sorted((shared_data / "clothing10" / kind / "test" / name).iterdir())[:20]:
                (tmp_path / kind / name / path.name).symlink_to(path)
    out = tmp_path / "made"
    assert main(["backgrounds", "make", str(tmp_path / "images"), str(tmp_path / "masks"), "--out", str(out)]) == 0
    # Clog, cowboy boot, Loafer, running shoe, sandal; jersey (T-shirt), sweatshirt.
    classes = dict.fromkeys((502, 514, 630, 770, 774), 0) | dict.fromkeys((610, 841), 1)
    (tmp_path / "map.json").write_text(json.dumps({str(label): classes.get(label, -1) for label in range(1000)}))
    suite = f"device: cpu\nsets: {{imagenet9: {out}, in_to_in9: {tmp_path / 'map.json'}}}\n"
    (tmp_path / "suite.yaml").write_text(suite)
    arguments = ["--suite", "imagenet9", "--data", str(tmp_path / "suite.yaml"), "--store", str(tmp_path / "store")]
    capsys.readouterr()
    assert main(["evaluate", weights, *arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    with Tracker(result["tracking_uri"]) as tracker:
        assert "imagenet9.png" in {one.path for one in tracker.client.list_artifacts(result["run_id"])}
    values = result["results"]["imagenet9"]["values"]
    assert values["original"] > 0.4
    assert values["only_fg"] > 0.3
    assert max(values["only_bg_b"], values["only_bg_t"]) < 0.1
    assert 0.1 < values["no_fg"] < values["only_fg"]  # the black shape of a shoe is still that of a shoe
