"""Detection transfer on boxes drawn around real masks, in VOC's and in COCO's layout."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.config import Detection, Encoder, Sets, SuiteConfig
from bgsweep.data import Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.boxes import Annotated, BoxSet, read_coco, read_voc
from bgsweep.evaluation.evaluators.average_precision import Found, average_precisions
from bgsweep.evaluation.evaluators.detection import build_detector, fine_tune, opened, rate, resnet_of
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.registry import run_evaluators
from bgsweep.models import build_encoder
from tests.evaluation.subjects import subject

KINDS = ("hat", "shoes")
SETTINGS = Detection(
    steps=120, batch_size=4, lr=0.02, warmup=10, regions=16, shorter=(48, 56), test_shorter=56, longer=64
)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> Path:
    """Hats and shoes of the embedded sample with the boxes of their masks; every eighth object is a difficult one."""
    place = tmp_path_factory.mktemp("boxes")
    (place / "coco" / "annotations").mkdir(parents=True)
    for part, source, count in (("train", splits.train, 16), ("val", splits.test, 8)):
        numbers = [i for kind in KINDS for i in np.flatnonzero(source.labels == source.classes.index(kind))[:count]]
        voc = place / "voc" / "VOC2007"
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (voc / folder).mkdir(parents=True, exist_ok=True)
        (place / "coco" / part).mkdir()
        images, annotations, names = [], [], []
        for number, index in enumerate(numbers):
            sample = source[int(index)]
            assert sample.mask is not None
            kind, name = source.classes[sample.label], f"{part}{number:03d}"
            left, top, width, height = cv2.boundingRect((sample.mask > 127).astype(np.uint8))
            for folder in (voc / "JPEGImages", place / "coco" / part):
                cv2.imwrite(str(folder / f"{name}.jpg"), sample.image[..., ::-1])
            (voc / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><object><name>{kind}</name><difficult>{int(number % 8 == 7)}</difficult><bndbox>"
                f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + width}</xmax><ymax>{top + height}</ymax>"
                "</bndbox></object></annotation>"
            )
            images.append({"id": number, "file_name": f"{name}.jpg"})
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 10 * (1 + KINDS.index(kind)),
                    "bbox": [left, top, width, height],
                    "iscrowd": int(number % 8 == 7),
                }
            )
            names.append(name)
        tree = {"images": images, "annotations": annotations, "categories": [{"id": 10, "name": "hat"}]}
        tree["categories"].append({"id": 20, "name": "shoes"})
        (place / "coco" / "annotations" / f"instances_{part}.json").write_text(json.dumps(tree))
        (voc / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return place


def examination(trees: Path, layout: str, settings: Detection = SETTINGS) -> EvalContext:
    torch.manual_seed(0)
    encoder = build_encoder(Encoder(name="resnet10", width=16), [64]).eval().requires_grad_(False)

    def encode(images: Tensor) -> Tensor:
        raise AssertionError("detection computes no features")

    named = {"voc": ("VOC2007/train", "VOC2007/val"), "coco": ("train", "val")}[layout]
    settings = settings.model_copy(update={"train": named[:1], "test": named[1]})
    file = SuiteConfig(sets=Sets(**{layout: str(trees / layout)}), detection=settings, threads=2)
    return EvalContext(FrozenModel(encode, encoder, torch.device("cpu")), file, None)


def same(one: BoxSet, other: BoxSet) -> None:
    assert one.classes == other.classes == KINDS
    for ours, theirs in zip(one.images, other.images, strict=True):
        assert ours.path.name == theirs.path.name
        for name in ("boxes", "labels", "ignored"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_both_layouts_hold_the_same_boxes(trees: Path) -> None:
    voc, coco = (opened(examination(trees, layout)) for layout in ("voc", "coco"))
    same(voc[0], coco[0])
    same(voc[1], coco[1])
    assert (len(voc[0].images), len(voc[1].images)) == (28, 16)  # an image of none but difficult objects


def test_the_encoders_weights_are_in_the_detector_and_stay_in_the_encoder(trees: Path) -> None:
    context = examination(trees, "voc")
    resnet = resnet_of(context.model)
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    for body in ("c4", "fpn"):
        detector = build_detector(resnet, 2, SETTINGS.model_copy(update={"body": body}))
        held = [value for value in detector.state_dict().values() if value.numel() > 1]
        for name, value in before.items():
            if value.numel() > 1 and not name.startswith("fc"):
                assert any(value.shape == one.shape and torch.equal(value, one) for one in held), f"{body}: {name}"
        assert all(one.requires_grad for one in detector.parameters())
    train, _ = opened(context)
    trained = fine_tune(examination(trees, "voc", SETTINGS.model_copy(update={"steps": 2})), train)
    first = trained.backbone[0].weight  # type: ignore[index]
    assert not torch.equal(first, before["conv1.weight"])
    assert all(torch.equal(before[name], value) for name, value in resnet.state_dict().items())


def test_a_detector_learns_where_garments_are(trees: Path) -> None:
    (result,) = run_evaluators(examination(trees, "coco"), ["detection"])
    values = {one.name: one.value for one in result.values}
    assert list(values) == ["detection_ap", "detection_ap50", "detection_ap75"]
    assert values["detection_ap50"] > 0.3 and values["detection_ap50"] > values["detection_ap75"]
    assert result.protocol["steps"] == 120 and "28 images" in result.protocol["train"]


def test_average_precision_of_known_boxes() -> None:
    boxes = np.array([[10, 10, 50, 50], [60, 20, 100, 80]], np.float32)
    labels, none = np.array([0, 1]), np.zeros(2, bool)
    truth = [Annotated(Path("x"), boxes, labels, none)]
    sure = np.array([0.9, 0.8], np.float32)

    def measured(found: Found, of: list[Annotated] = truth) -> list[float]:
        return list(average_precisions(of, [found], 2).values())

    assert measured(Found(boxes, labels, sure)) == pytest.approx([1, 1, 1])
    assert measured(Found(boxes, 1 - labels, sure)) == [0, 0, 0]
    assert measured(Found(boxes[:1], labels[:1], sure[:1])) == pytest.approx([0.5, 0.5, 0.5])
    # A shift of 8 of 40 pixels leaves an overlap of 32 / 48: right at 0.5, 0.55, 0.6 and 0.65 only.
    shifted = boxes[:1] + np.array([8, 0, 8, 0], np.float32)
    alone = [Annotated(Path("x"), boxes[:1], labels[:1], none[:1])]
    assert measured(Found(shifted, labels[:1], sure[:1]), alone) == pytest.approx([0.4, 1, 0])
    ignored = [replace(truth[0], ignored=np.array([False, True]))]
    assert measured(Found(boxes[:1], labels[:1], sure[:1]), ignored)[1] == pytest.approx(1)
    assert measured(Found(boxes[:0], labels[:0], sure[:0])) == [0, 0, 0]


def test_the_rate_warms_up_and_drops_twice() -> None:
    published = Detection()
    assert rate(0, published) == pytest.approx(0.001) and rate(50, published) == pytest.approx(0.5005)
    assert [rate(step, published) for step in (100, 17_999)] == [1, 1]
    assert rate(18_000, published) == pytest.approx(0.1) and rate(22_000, published) == pytest.approx(0.01)


def test_what_cannot_be_measured_is_said(trees: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only ResNets of torchvision"):
        run_evaluators(EvalContext(subject(), SuiteConfig(), None), ["detection"])
    context = examination(trees, "voc")
    bare = EvalContext(context.model, SuiteConfig(), None)
    with pytest.raises(UserError, match=r"sets\.voc is not set; download VOCtrainval_06-Nov-2007\.tar"):
        run_evaluators(bare, ["detection"])
    with pytest.raises(UserError, match=r"VOC2012/ImageSets/Main/trainval\.txt: cannot be read"):
        read_voc(trees / "voc", ("VOC2012/trainval",))
    with pytest.raises(UserError, match="has objects of hat, unknown to training"):
        read_voc(trees / "voc", ("VOC2007/val",), ("shoes",))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"instances_val\.json: not COCO's instances"):
        read_coco(tmp_path, ("val",))
