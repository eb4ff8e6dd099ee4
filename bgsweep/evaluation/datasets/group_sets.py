"""Sets whose images have a class and a group: a table of path, label and group, or a folder whose names say them."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bgsweep.config.evaluation import Groups
from bgsweep.errors import UserError
from bgsweep.evaluation.datasets.listing import SUFFIXES, Listing
from bgsweep.images.files import is_junk
from bgsweep.seeding import Draw, rng_key

SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {"0": "train", "1": "validation", "2": "test", "val": "validation", "valid": "validation"}
FORMS = {
    "urbancars": "{split}/obj-{label}_bg-{group}_co_occur_obj-{group}",
    "metashift": "{split}/{label}/*({group})",
    "spawrious": "{split}/{group}/{label}",
    "counteranimal": "{label}/{group}",
}
"""Names of class and group in the folders of published sets, as in `Groups.form`."""
# The columns of Waterbirds' metadata.csv beside those of our own tables.
_COLUMNS = {
    "path": ("path", "img_filename", "filename"),
    "label": ("label", "y", "class"),
    "group": ("group", "place", "a"),
    "split": ("split",),
}


@dataclass(frozen=True)
class Member:
    """An image of a set, relative to its folder; the split is empty where the set does not say."""

    path: str
    label: str
    group: str
    split: str


@dataclass(frozen=True)
class GroupSet:
    """A set by split; a group is a class with one kind of background, or whatever the set's groups are.

    Attributes:
        listings: files and labels of `train`, `test` and, if the set has one, `validation`.
        groups: numbers (N,) of the groups of each split's files, into `names`.
        names: ``LABEL, GROUP``.
    """

    listings: Mapping[str, Listing]
    groups: Mapping[str, npt.NDArray[np.int64]]
    classes: list[str]
    names: list[str]


def read_groups(settings: Groups) -> GroupSet:
    """Read a set.

    Raises:
        UserError: it is missing, lacks a column or a file, or has one class, one group or no test images.
    """
    if settings.path is None:
        raise UserError(
            "groups.path is not set; name a CSV file with the columns path, label and group, or a folder (groups.form)"
        )
    path = Path(settings.path).expanduser()
    if path.is_dir():
        root, members = path, list(_of_folder(path, settings.form))
    else:
        root, members = path.parent, list(_of_table(path))
    return _grouped(path, root, members, settings.seed)


def _of_table(path: Path) -> Iterator[Member]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = _columns(rows.fieldnames or [], path)
            for number, row in enumerate(rows, start=2):
                found = {key: (row.get(name) or "").strip() if name else "" for key, name in columns.items()}
                if not all(found[key] for key in ("path", "label", "group")):
                    raise UserError(f"{path}: line {number} lacks a path, label or group; complete it")
                split = _split(found["split"], f"line {number}", path)
                yield Member(found["path"], found["label"], found["group"], split)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); name a CSV file or a folder") from error


def _columns(there: Sequence[str], path: Path) -> dict[str, str]:
    found = {key: next((name for name in names if name in there), "") for key, names in _COLUMNS.items()}
    missing = [key for key in ("path", "label", "group") if not found[key]]
    if missing:
        raise UserError(f"{path}: no column {missing[0]}; it has {', '.join(there) or 'none'}")
    return found


def _split(name: str, where: str, path: Path) -> str:
    found = _SPLIT_NAMES.get(name.lower(), name.lower())
    if found and found not in SPLITS:
        raise UserError(f"{path}: {where} is of the split {name!r}; write train, validation or test (or 0, 1, 2)")
    return found


def _of_folder(root: Path, form: str | None) -> Iterator[Member]:
    if form is None:
        raise UserError(
            f"groups.form: say where the class and the group stand in the names of {root}'s folders: one of "
            f"{', '.join(FORMS)}, or such as {{split}}/{{label}}/{{group}}"
        )
    pattern = _pattern(FORMS.get(form, form))
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or is_junk(path.name) or path.stem.endswith("_mask"):
            continue
        name = path.relative_to(root).as_posix()
        if (found := pattern.fullmatch(name.rpartition("/")[0])) is None:
            continue
        parts = found.groupdict()
        group = ", ".join(value for key, value in parts.items() if key.startswith("group"))
        split = parts.get("split")
        if split is not None and _SPLIT_NAMES.get(split, split) not in SPLITS:
            continue
        yield Member(name, parts["label"], group, _split(split or "", name, root))


def _pattern(form: str) -> re.Pattern[str]:
    """A form as a pattern of folders' names; the group may stand in several parts of it."""
    if form.count("{label}") != 1 or "{group}" not in form or re.sub(r"\{(label|group|split)\}", "", form).count("{"):
        raise UserError(f"groups.form: {form!r} needs one {{label}}, and {{group}}; {{split}} and * are allowed")
    parts, groups = [], 0
    for part in re.split(r"(\{label\}|\{group\}|\{split\}|\*)", form):
        if part == "{group}":
            groups += 1
            parts.append(f"(?P<group{groups}>[^/]+?)")
        elif part == "*":
            parts.append("[^/]*?")
        else:
            parts.append(f"(?P<{part[1:-1]}>[^/]+?)" if part.startswith("{") else re.escape(part))
    return re.compile("".join(parts))


def _grouped(path: Path, root: Path, members: list[Member], seed: int) -> GroupSet:
    classes = sorted({each.label for each in members}, key=_number_first)
    names = sorted({(each.label, each.group) for each in members}, key=lambda pair: tuple(map(_number_first, pair)))
    if len(classes) < 2 or len(names) <= len(classes):
        found = f"{len(members)} images of {len(classes)} classes in {len(names)} groups"
        raise UserError(f"{path}: {found}; two classes are needed, and a class with two groups (groups.form)")
    splits = [each.split for each in members]
    if not any(splits):
        splits = _halved(members, seed)
    elif not all(splits):
        nameless = members[splits.index("")].path
        raise UserError(f"{path}: {splits.count('')} images have no split, the first is {nameless}; name all or none")
    listings, groups = {}, {}
    label_of, group_of = ({each: number for number, each in enumerate(every)} for every in (classes, names))
    for split in SPLITS:
        chosen = [each for each, of in zip(members, splits, strict=True) if of == split]
        if not chosen and split != "validation":
            raise UserError(f"{path}: no image of the split {split}; name it in the split column or the folders")
        paths = [root / each.path for each in chosen]
        absent = next((each for each in paths if not each.is_file()), None)
        if absent is not None:
            raise UserError(f"{absent}: no such file, which {path} names; unpack the set whole")
        labels = np.array([label_of[each.label] for each in chosen], np.int64)
        if chosen:
            listings[split] = Listing(f"groups/{split}", paths, labels)
            groups[split] = np.array([group_of[each.label, each.group] for each in chosen], np.int64)
    return GroupSet(listings, groups, classes, [", ".join(pair) for pair in names])


def _halved(members: list[Member], seed: int) -> list[str]:
    """Splits of a set that has none: half of each group for training, by the images' names."""
    keys = {each.path: rng_key(seed, 0, f"groups/{each.path}", Draw.PROBE_HOLD_OUT) for each in members}
    first: set[str] = set()
    for pair in {(each.label, each.group) for each in members}:
        own = sorted((each.path for each in members if (each.label, each.group) == pair), key=keys.__getitem__)
        first |= set(own[: (len(own) + 1) // 2])
    return ["train" if each.path in first else "test" for each in members]


def _number_first(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (1 << 30, name)
