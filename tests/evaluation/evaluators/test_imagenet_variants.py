"""Each published set against a slow reference, on small real trees in its layout."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from torchvision import transforms

from bgsweep.config import Evaluate, Preprocessing, Sets, SuiteConfig
from bgsweep.data import Splits
from bgsweep.data.datasets.folder import Folder
from bgsweep.errors import UserError
from bgsweep.evaluation.classifier import user_head
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.imagenet import wnids
from bgsweep.evaluation.evaluator import Result
from bgsweep.evaluation.evaluators.imagenet_c import ALEXNET_ERRORS
from bgsweep.evaluation.evaluators.imagenet_variants import read_real
from bgsweep.evaluation.evaluators.linear_published import PROTOCOLS, fit
from bgsweep.evaluation.evaluators.shape_bias import CATEGORIES
from bgsweep.evaluation.registry import open_evaluator, run_evaluators
from tests.evaluation.subjects import subject

WHO = subject(spread=3.0)
PREPROCESSING = Preprocessing(resize=36, crop=32)
SEE = transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32)])


@pytest.fixture(scope="module")
def labels(shared_data: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((shared_data / "eval_labels" / "imagenet_1k_a_r_wnids.json").read_text())
    return tree


@pytest.fixture(scope="module")
def images(splits: Splits) -> list[np.ndarray]:
    return [splits.train[index].image for index in range(0, 960, 16)]


def logits(picture: PIL.Image.Image, see: Callable[[Any], Any] = SEE) -> torch.Tensor:
    assert WHO.head is not None
    return WHO.head(WHO.encode(torch.from_numpy(np.array(see(picture.convert("RGB"))))[None]))[0]


def run(name: str, threads: int = 4, batch_size: int = 256, **sets: Path) -> Result:
    settings = Sets(**{key: str(path) for key, path in sets.items()})
    file = SuiteConfig(
        sets=settings, preprocessing=PREPROCESSING, evaluate=Evaluate(batch_size=batch_size), threads=threads
    )
    (result,) = run_evaluators(EvalContext(WHO, file, None), [name])
    return result


def values(result: Result) -> dict[str, float]:
    return {one.name: one.value for one in result.values}


def tree(root: Path, folders: list[str], images: list[np.ndarray], ending: str = "png") -> dict[Path, str]:
    """All folders, images spread over some of them; files with their folder's name."""
    for name in folders:
        (root / name).mkdir(parents=True)
    made = {}
    for number, image in enumerate(images):
        # Most images go where the classifier would have them, so that accuracies are not all zero.
        path = root / folders[(7 * number) % len(folders)] / f"{number}.{ending}"
        cv2.imwrite(str(path), image[..., ::-1])
        made[path] = path.parent.name
    return made


def moved(made: dict[Path, str], choose: Callable[[PIL.Image.Image], str | None]) -> dict[Path, str]:
    """Every second image in the folder that the classifier would choose."""
    found = {}
    for number, (path, name) in enumerate(made.items()):
        better = choose(PIL.Image.open(path)) if number % 2 else None
        found[path.rename(path.parent.parent / (better or name) / path.name)] = better or name
    return found


def test_the_label_files_that_evaluations_rest_on(shared_data: Path, labels: dict[str, Any]) -> None:
    assert tuple(labels["imagenet_1k_wnids_in_label_order"]) == wnids()
    ours = [wnids().index(wnid) for wnid in sorted(labels["imagenet_a_wnids"])]
    assert ours == labels["imagenet_a_label_indices"] and len(ours) == 200
    assert len(set(labels["imagenet_r_wnids"])) == 200
    assert set(labels["imagenet_r_wnids"]) != set(labels["imagenet_a_wnids"])
    real = read_real(shared_data / "eval_labels" / "imagenet_real.json")
    assert sum(not one for one in real) == 3163
    assert np.mean([len(one) for one in real]) == pytest.approx(1.151, abs=0.001)


def test_some_of_imagenets_classes_judge_the_images_of_these_alone(images: list[np.ndarray], tmp_path: Path) -> None:
    """As ImageNet-100: a probe on images that are cropped and resized as those that it judges; others are left out."""
    known = [3, 7, 500]
    tree(tmp_path / "train", [wnids()[label] for label in known], images[:30])
    tree(tmp_path / "v2", [str(label) for label in range(1000)], images)
    tree(tmp_path / "few", [wnids()[label] for label in known[:2]], images[:8])
    for label in known:
        for number, image in enumerate(images[30 + label % 5 : 34]):
            cv2.imwrite(str(tmp_path / "v2" / str(label) / f"more{number}.png"), image[..., ::-1])
    train, seen = Folder(tmp_path / "train", "."), set[bytes]()

    def encode(shown: torch.Tensor) -> torch.Tensor:
        seen.update(image.numpy().tobytes() for image in shown)
        return WHO.encode(shown)

    who = replace(WHO, head=None, encode=encode)
    sets = Sets(**{key: str(tmp_path / name) for key, name in {"imagenet_v2": "v2", "imagenet_sketch": "few"}.items()})
    context = EvalContext(
        who, SuiteConfig(sets=sets, preprocessing=PREPROCESSING, evaluate=Evaluate()), Splits(train, train, train)
    )
    v2, sketch = run_evaluators(context, ["imagenet_v2", "imagenet_sketch"])
    assert {seen_bytes(each.image) for each in train} <= seen
    assert len(v2.listings[0]) == sum(len(list((tmp_path / "v2" / str(label)).iterdir())) for label in known)
    head = user_head(context)[0]
    rights = [
        known[
            int(head(WHO.encode(torch.from_numpy(np.array(SEE(PIL.Image.open(path).convert("RGB"))))[None])).argmax())
        ]
        == int(path.parent.name)
        for path in v2.listings[0].paths
    ]
    assert values(v2)["imagenet_v2_top1"] == pytest.approx(np.mean(rights))
    assert v2.protocol["prediction"] == "arg-max over 3 classes" and "3 classes" in v2.protocol["classifier"]
    assert len(sketch.listings[0]) == 8
    with pytest.raises(UserError, match="3 of ImageNet's classes; this evaluator needs a classifier of all 1000"):
        open_evaluator("shape_bias", context)


def test_all_sets_are_restricted_to_some_of_imagenets_classes(
    labels: dict[str, Any], images: list[np.ndarray], shared_data: Path, tmp_path: Path
) -> None:
    """-A and -R to those of their own classes that are known; -C and ReaL to all known ones."""
    both = sorted({wnids().index(one) for one in set(labels["imagenet_a_wnids"]) & set(labels["imagenet_r_wnids"])})
    own = both[:3]
    none = set(labels["imagenet_a_wnids"]) | set(labels["imagenet_r_wnids"])
    known = sorted([*own, next(label for label in range(1000) if wnids()[label] not in none)])
    names = [wnids()[label] for label in known]
    tree(tmp_path / "train", names, images[:32])
    given = {key: tree(tmp_path / key, sorted(labels[f"{key}_wnids"]), []) for key in ("imagenet_a", "imagenet_r")}
    assert not any(given.values())
    for key in given:
        for number, image in enumerate(images):
            label = both[3] if number % 4 == 3 else own[number % 4]  # every fourth is of a class that is not known
            cv2.imwrite(str(tmp_path / key / wnids()[label] / f"{number}.png"), image[..., ::-1])
    small = [cv2.resize(image, (32, 32))[..., ::-1] for image in images]
    for place, name in enumerate(ALEXNET_ERRORS):
        for severity in range(1, 6):
            for number, wnid in enumerate(names):
                (tmp_path / "c" / name / str(severity) / wnid).mkdir(parents=True)
                file = tmp_path / "c" / name / str(severity) / wnid / "1.png"
                cv2.imwrite(str(file), small[(7 * place + 4 * severity + number) % len(small)])
    lists = json.loads((shared_data / "eval_labels" / "imagenet_real.json").read_text())
    of_known = [number for number, one in enumerate(lists, 1) if set(one) & set(known)][:20]
    others = [number for number, one in enumerate(lists, 1) if not set(one) & set(known)][:5]
    for number, image in zip([*of_known, *others], images, strict=False):
        folder = tmp_path / "val" / names[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"ILSVRC2012_val_{number:08d}.png"), image[..., ::-1])
    train = Folder(tmp_path / "train", ".")
    folders = {"imagenet_a": "imagenet_a", "imagenet_r": "imagenet_r", "imagenet_c": "c", "imagenet_val": "val"}
    sets = Sets(
        **{key: str(tmp_path / name) for key, name in folders.items()},
        real=str(shared_data / "eval_labels" / "imagenet_real.json"),
    )
    config = SuiteConfig(sets=sets, preprocessing=PREPROCESSING, evaluate=Evaluate())
    context = EvalContext(replace(WHO, head=None), config, Splits(train, train, train))
    keys = ("imagenet_a", "imagenet_r", "imagenet_c", "real")
    found = dict(zip(keys, run_evaluators(context, list(keys)), strict=True))
    head = user_head(context)[0]

    def guess(path: Path, among: list[int], see: Callable[[Any], Any] = SEE) -> int:
        shown = np.array(see(PIL.Image.open(path).convert("RGB")))
        scores = head(WHO.encode(torch.from_numpy(shown)[None]))[0]
        return among[int(scores[[known.index(label) for label in among]].argmax())]

    for key in given:
        paths = found[key].listings[0].paths
        assert len(paths) == 45 and {path.parent.name for path in paths} == {wnids()[label] for label in own}
        right = [wnids()[guess(path, own)] == path.parent.name for path in paths]
        assert values(found[key])[f"{key}_top1"] == pytest.approx(np.mean(right)) and np.mean(right) > 0
        assert found[key].protocol["prediction"] == "arg-max over 3 of the set's 200 classes"
    errors = []
    for name, alexnet in ALEXNET_ERRORS.items():
        paths = sorted((tmp_path / "c" / name).rglob("*.png"))
        errors.append(np.mean([wnids()[guess(one, known, lambda p: p)] != one.parent.name for one in paths]) / alexnet)
    assert values(found["imagenet_c"])["imagenet_c_mce"] == pytest.approx(np.mean(errors))
    assert found["imagenet_c"].protocol["prediction"] == "arg-max over 4 classes"
    files = {int(path.stem[-8:]): path for path in (tmp_path / "val").rglob("*.png")}
    right = [guess(files[number], known) in lists[number - 1] for number in of_known]
    assert values(found["real"]) == {"real_top1": pytest.approx(np.mean(right))}


def test_the_methods_own_linear_head_judges_shift_sets(
    images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`classifier: linear_moco`, trained on the user's ImageNet by MoCo's protocol, here of one epoch."""
    known = [3, 7, 500]
    for folder, some in (("train", images[:30]), ("sketch", images[30:])):
        tree(tmp_path / folder, [wnids()[label] for label in known], some)
    train = Folder(tmp_path / "train", ".")
    monkeypatch.setitem(PROTOCOLS, "linear_moco", replace(PROTOCOLS["linear_moco"], epochs=1))
    sets = Sets(imagenet_sketch=str(tmp_path / "sketch"))
    config = SuiteConfig(sets=sets, preprocessing=PREPROCESSING, classifier="linear_moco", evaluate=Evaluate())
    context = EvalContext(replace(WHO, head=None), config, Splits(train, train, train))
    (result,) = run_evaluators(context, ["imagenet_sketch"])
    assert result.protocol["classifier"].startswith(f"linear_moco on {train.name}")
    layer = fit(context, PROTOCOLS["linear_moco"])
    right = []
    for path in result.listings[0].paths:
        shown = torch.from_numpy(np.array(SEE(PIL.Image.open(path).convert("RGB"))))[None]
        with torch.no_grad():
            right.append(wnids()[known[int(layer(WHO.encode(shown)).argmax())]] == path.parent.name)
    assert values(result)["imagenet_sketch_top1"] == pytest.approx(np.mean(right))


def seen_bytes(image: np.ndarray) -> bytes:
    return np.array(SEE(PIL.Image.fromarray(image))).tobytes()


def test_the_sixteen_categories_share_no_label() -> None:
    every = [label for labels in CATEGORIES.values() for label in labels]
    assert len(CATEGORIES) == 16 and list(CATEGORIES) == sorted(CATEGORIES)
    assert len(every) == len(set(every)) == 207
    assert {wnids()[label] for label in CATEGORIES["elephant"]} == {"n02504013", "n02504458"}
    assert {wnids()[label] for label in CATEGORIES["cat"]} >= {"n02123045", "n02124075"}
    assert len(CATEGORIES["dog"]) == 109 and len(CATEGORIES["bird"]) == 49


@pytest.mark.parametrize("key", ["imagenet_a", "imagenet_r"])
def test_only_the_sets_own_200_classes_compete(
    key: str, labels: dict[str, Any], images: list[np.ndarray], tmp_path: Path
) -> None:
    own = sorted(labels[f"{key}_wnids"])
    numbers = [wnids().index(wnid) for wnid in own]

    def choose(picture: PIL.Image.Image) -> str:
        return own[int(logits(picture)[numbers].argmax())]

    made = moved(tree(tmp_path / "set", own, images), choose)
    right = [choose(PIL.Image.open(path)) == wnid for path, wnid in made.items()]
    for threads, batch_size in ((1, 16), (4, 256)):
        found = values(run(key, threads, batch_size, **{key: tmp_path / "set"}))
        assert found == {f"{key}_top1": pytest.approx(np.mean(right))}
    assert 0.5 <= np.mean(right) < 1
    thousand = [wnids()[int(logits(PIL.Image.open(path)).argmax())] == wnid for path, wnid in made.items()]
    assert np.mean(thousand) < np.mean(right), "the mask makes no difference here, so that its loss would not show"
    (tmp_path / "set" / own[0]).rename(tmp_path / own[0])
    with pytest.raises(UserError, match="199 folders in it, expected 200 like"):
        run(key, **{key: tmp_path / "set"})


@pytest.mark.parametrize("key", ["imagenet_v2", "imagenet_sketch"])
def test_a_thousand_folders(key: str, images: list[np.ndarray], tmp_path: Path) -> None:
    folders = [str(number) for number in range(1000)] if key == "imagenet_v2" else list(wnids())

    def choose(picture: PIL.Image.Image) -> str:
        return folders[int(logits(picture).argmax())]

    made = moved(tree(tmp_path / "set", folders, images), choose)
    right = [choose(PIL.Image.open(path)) == name for path, name in made.items()]
    found = values(run(key, **{key: tmp_path / "set"}))
    assert found[f"{key}_top1"] == pytest.approx(np.mean(right)) and 0.5 <= np.mean(right) < 1
    assert found[f"{key}_top5"] >= found[f"{key}_top1"]


def test_validation_and_real_see_the_same_images(images: list[np.ndarray], shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "eval_labels" / "imagenet_real.json"
    lists = json.loads(real.read_text())
    empty = [number for number, one in enumerate(lists, start=1) if not one][:5]
    chosen = [int(logits(PIL.Image.fromarray(image)).argmax()) for image in images]
    # Numbers of validation images whose reassessed labels hold what the classifier says, five of images without any,
    # and others; in folders whose order is not that of the numbers.
    rightly: list[int] = []
    for guess in chosen[:20]:
        rightly.append(next(n for n, one in enumerate(lists, 1) if guess in one and n not in rightly))
    others = (n for n in range(40_000, 40_100) if n not in {*rightly, *empty})
    numbers = [*rightly, *empty, *others][: len(images)]
    folders = tree(tmp_path / "val", list(wnids()), [])
    assert not folders
    expected, counted, top1 = [], [], []
    for place, (image, number) in enumerate(zip(images, numbers, strict=True)):
        label = chosen[place] if place % 3 == 0 else (5 * place) % 1000
        path = tmp_path / "val" / wnids()[label] / f"ILSVRC2012_val_{number:08d}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        guess = int(logits(PIL.Image.open(path)).argmax())
        top1.append(guess == label)
        if lists[number - 1]:
            counted.append(number)
            expected.append(guess in lists[number - 1])
    sets = {"imagenet_val": tmp_path / "val", "real": real}
    assert values(run("real", **sets)) == {"real_top1": pytest.approx(np.mean(expected))}
    assert len(counted) <= len(images) - 5 and 0.05 < np.mean(expected) < 1
    assert values(run("imagenet", **sets))["imagenet_top1"] == pytest.approx(np.mean(top1))
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (tmp_path / "val").rglob("*.png"):
        path.rename(flat / path.name)
    assert values(run("real", imagenet_val=flat, real=real)) == {"real_top1": pytest.approx(np.mean(expected))}
    with pytest.raises(UserError, match="sort them into one folder for each wnid"):
        run("imagenet", imagenet_val=flat)


def test_objectnet_maps_names_over_three_files(images: list[np.ndarray], tmp_path: Path) -> None:
    """As in the release, names are listed in another order than labels, and not all folders are mapped."""
    mappings = tmp_path / "mappings"
    mappings.mkdir()
    order = np.random.default_rng(0).permutation(1000)  # the line of each label's name
    lines = [""] * 1000
    for label, line in enumerate(order):
        lines[line] = f"name {label}, other name"
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(
        json.dumps({str(n): int(o) for n, o in enumerate(order)})
    )
    mapped = {f"thing_{number}": [number, 500 + 3 * number] for number in range(100)}
    names = {folder: folder.replace("_", " ").title() for folder in [*mapped, "unmapped"]}
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(names))
    shared = {
        names[folder]: "; ".join(f"name {one}, other name" for one in labels) for folder, labels in mapped.items()
    }
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(shared))
    see = transforms.Compose([transforms.Lambda(lambda p: p.crop((2, 2, p.width - 2, p.height - 2))), SEE])

    def scores(picture: PIL.Image.Image) -> list[float]:
        found = logits(picture, see)
        return [max(float(found[label]) for label in labels) for labels in mapped.values()]

    def choose(picture: PIL.Image.Image) -> str:
        return list(mapped)[int(np.argmax(scores(picture)))]

    framed = [cv2.copyMakeBorder(i, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 0, 0)) for i in images]
    made = moved(tree(tmp_path / "images", [*mapped, "unmapped"][:100], framed), choose)
    (tmp_path / "images" / "unmapped").mkdir()
    right = [choose(PIL.Image.open(path)) == name for path, name in made.items()]
    thousand = [int(logits(PIL.Image.open(path), see).argmax()) in mapped[name] for path, name in made.items()]
    found = values(run("objectnet", objectnet=tmp_path))
    assert found["objectnet_top1"] == pytest.approx(np.mean(right)) and 0.5 <= np.mean(right) < 1
    assert found["objectnet_1000way_top1"] == pytest.approx(np.mean(thousand))
    (mappings / "imagenet_to_label_2012_v2").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="do not fit together"):
        run("objectnet", objectnet=tmp_path)


@pytest.mark.slow
def test_mce_is_the_mean_over_corruptions_against_alexnet(images: list[np.ndarray], tmp_path: Path) -> None:
    small = [cv2.resize(image, (32, 32)) for image in images]
    expected = []
    for place, (name, alexnet) in enumerate(ALEXNET_ERRORS.items()):
        wrong = []
        for severity in range(1, 6):
            root = tmp_path / name / str(severity)
            # One corruption has more images than the others, which must not give it more weight.
            chosen = small[severity :: 9 if place else 4]
            for wnid in wnids():
                (root / wnid).mkdir(parents=True)  # 75,000 folders in all
            for number, image in enumerate(chosen):
                guess = int(logits(PIL.Image.fromarray(image), lambda p: p).argmax())
                label = guess if number % 2 else (guess + 1) % 1000
                cv2.imwrite(str(root / wnids()[label] / f"{number}.png"), image[..., ::-1])
                wrong.append(label != guess)
        expected.append(np.mean(wrong) / alexnet)
    found = values(run("imagenet_c", imagenet_c=tmp_path))
    assert found["imagenet_c_mce"] == pytest.approx(np.mean(expected))
    assert len(found) == 16


def test_shape_bias_equals_the_slow_way(shared_data: Path) -> None:
    root = shared_data / "cue_conflict" / "style-transfer-preprocessed-512"
    shape = texture = 0
    for path in sorted(root.rglob("*.jpg")):
        probabilities = logits(PIL.Image.open(path)).softmax(dim=0)
        means = {name: float(np.mean([float(probabilities[n]) for n in ns])) for name, ns in CATEGORIES.items()}
        decided = max(means, key=means.__getitem__)
        one, other = (part.rstrip("0123456789") for part in path.stem.split("-"))
        assert one == path.parent.name
        shape += one != other and decided == one
        texture += one != other and decided == other
    result = run("shape_bias", cue_conflict=root)
    assert values(result)["shape_bias"] == pytest.approx(shape / (shape + texture))
    assert shape > 0 and texture > 0 and result.protocol["stimuli"] == 320


@pytest.mark.slow
def test_a_real_classifier_prefers_texture(shared_data: Path, tmp_path: Path) -> None:
    """EfficientNet-Lite0: 21.4 % (torchvision's ResNet-50 has 21.39 % on all 1,280 stimuli)."""
    from bgsweep.tracking.encoders import load_model
    from bgsweep.workflows.evaluate import on_device
    from tests.evaluation.efficientnet import write_weights

    who = on_device(load_model(write_weights(tmp_path / "weights.pth"), 224, tmp_path), "cpu")
    sets = Sets(cue_conflict=str(shared_data / "cue_conflict" / "style-transfer-preprocessed-512"))
    file = SuiteConfig(sets=sets, preprocessing=Preprocessing(interpolation="bicubic"))
    (result,) = run_evaluators(EvalContext(who, file, None), ["shape_bias"])
    assert values(result)["shape_bias"] == pytest.approx(0.214, abs=0.01)
    assert values(result)["shape_match"] + values(result)["texture_match"] > 0.6
