"""Published sets: where each is downloaded, its size and layout, for the error line of a missing one."""

from pathlib import Path
from typing import NamedTuple

from bgsweep.config import Sets
from bgsweep.errors import UserError


class Download(NamedTuple):
    """A published set: its file, address, size and layout once unpacked.

    Sizes are those of the archives in the checksum lists of TensorFlow Datasets, or of the files themselves. Where it
    says unchecked, no such figure was found.
    """

    what: str
    where: str
    size: str
    tree: str


DOWNLOADS = {
    "imagenet_val": Download(
        "the ILSVRC2012 validation images",
        "image-net.org",
        "6.7 GB",
        "FOLDER/[n01440764/]ILSVRC2012_val_00000293.JPEG",
    ),
    "real": Download("real.json", "github.com/google-research/reassessed-imagenet", "0.4 MB", "a file"),
    "imagenet9": Download(
        "backgrounds_challenge_data.tar.gz",
        "github.com/MadryLab/backgrounds_challenge/releases",
        "32,400 images of 224 px and 4,050 masks; about 1 GB, unchecked",
        "FOLDER/original/val/00_dog/*.JPEG, seven more variants, and FOLDER/fg_mask/val/00_dog/*.npy",
    ),
    "in_to_in9": Download("in_to_in9.json", "github.com/MadryLab/backgrounds_challenge", "11 kB", "a file"),
    "imagenet_a": Download(
        "imagenet-a.tar",
        "github.com/hendrycks/natural-adv-examples",
        "0.69 GB",
        "FOLDER/n01498041/*.jpg, 200 folders",
    ),
    "imagenet_r": Download(
        "imagenet-r.tar", "github.com/hendrycks/imagenet-r", "2.2 GB", "FOLDER/n01443537/*.jpg, 200 folders"
    ),
    "imagenet_v2": Download(
        "imagenetv2-matched-frequency.tar.gz",
        "github.com/modestyachts/ImageNetV2",
        "1.3 GB",
        "FOLDER/0/*.jpeg, 1000 folders",
    ),
    "imagenet_sketch": Download(
        "ImageNet-Sketch.zip",
        "github.com/HaohanWang/ImageNet-Sketch",
        "50,889 images; about 8 GB, unchecked",
        "FOLDER/n01440764/*, 1000 folders",
    ),
    "imagenet_c": Download(
        "blur.tar, digital.tar, noise.tar and weather.tar",
        "zenodo.org/records/2235448",
        "3,750,000 images of 224 px; about 50 GB, unchecked",
        "FOLDER/gaussian_noise/1/n01440764/*.JPEG, 15 corruptions of 5 severities; or name sets.frost and "
        "sets.imagenet_val, of which it is then made",
    ),
    "frost": Download(
        "frost1.png, frost2.png, frost3.png, frost4.jpg and frost5.jpg",
        "github.com/hendrycks/robustness, ImageNet-C/imagenet_c",
        "2.0 MB",
        "FOLDER/frost1.png",
    ),
    "objectnet": Download(
        "objectnet-1.0.zip",
        "objectnet.dev",
        "50,000 images; about 190 GB, unchecked",
        "FOLDER/images/air_freshener/*.png and FOLDER/mappings/*",
    ),
    "voc": Download(
        "VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar and VOCtrainval_11-May-2012.tar",
        "host.robots.ox.ac.uk/pascal/VOC",
        "2.9 GB",
        "FOLDER/VOC2007/{JPEGImages,Annotations,ImageSets/Main} and FOLDER/VOC2012; or name sets.coco",
    ),
    "coco": Download(
        "train2017.zip, val2017.zip and annotations_trainval2017.zip",
        "cocodataset.org",
        "20.4 GB",
        "FOLDER/train2017/*.jpg, FOLDER/val2017/*.jpg and FOLDER/annotations/instances_train2017.json",
    ),
    "cue_conflict": Download(
        "stimuli/style-transfer-preprocessed-512",
        "github.com/rgeirhos/texture-vs-shape",
        "1,280 images of 224 px; about 100 MB, unchecked",
        "FOLDER/cat/cat1-boat1.png, 16 folders",
    ),
}


def path_of(sets: Sets, key: str) -> Path:
    """Path of a set.

    Raises:
        UserError: the file names no such place, or nothing is there: what to download, its size and its tree.
    """
    given = getattr(sets, key)
    found = DOWNLOADS[key]
    told = f"download {found.what} ({found.size}) from {found.where}; expected: {found.tree}"
    if given is None:
        raise UserError(f"sets.{key} is not set; {told}")
    path = Path(given).expanduser()
    if not path.exists():
        raise UserError(f"sets.{key}: there is no {path}; {told}")
    if path.is_dir() == (found.tree == "a file"):
        raise UserError(f"sets.{key}: {path} is {'a folder' if path.is_dir() else 'a file'}; {told}")
    return path
