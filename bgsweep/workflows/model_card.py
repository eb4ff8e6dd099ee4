"""Model card of an exported encoder, as README.md: use, training, evaluation, lineage and license."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bgsweep.report.statistics import Interval, difference, wilson

_RECORDED = (
    ("registered", "registered model"),
    ("run_id", "MLflow run"),
    ("sweep", "sweep"),
    ("trial", "trial"),
    ("digest", "digest of the experiment"),
    ("git_commit", "git commit of bgsweep"),
    ("bgsweep", "version of bgsweep"),
)
_AUGMENTATIONS = (("remove", "BG_RM"), ("random", "BG_Random"), ("swap", "BG_Swaps"))
_PAPER = "[Ryali, Schwab and Morcos 2021](https://arxiv.org/abs/2103.12719)"
_INTERVALS = (
    "95 % intervals are Wilson's for a share of the images in the last column; that of `bg_gap`, a difference of two "
    "such shares, is Newcombe's. They do not include the variation between training runs."
)


def model_card(network: str, about: Mapping[str, Any], load: Sequence[str], tags: Sequence[str]) -> str:
    """The page.

    Args:
        network: its name where it will be used.
        about: what `bgsweep export` writes into `encoder.json`.
        load: lines of Python that load the encoder from its folder.
        tags: of the page on Hugging Face, whose first one names the library.
    """
    method = f", {about['experiment']['method']['name']}" if about["experiment"] else ""
    parts = [_front(tags), f"# {network}{method}", _summary(about), _use(about, load)]
    if about["experiment"]:
        parts += [_training(about), _evaluation(about["lineage"]), _lineage(about["lineage"])]
    return "\n\n".join(filter(None, [*parts, _LICENSE])) + "\n"


_LICENSE = """## License

To be filled in by whoever publishes these weights, as the license of the images that they were trained on allows."""


def _front(tags: Sequence[str]) -> str:
    """The block that Hugging Face's pages are found by."""
    listed = "\n".join(f"- {tag}" for tag in tags)
    return f"---\nlibrary_name: {tags[0]}\npipeline_tag: image-feature-extraction\ntags:\n{listed}\n---"


def _summary(about: Mapping[str, Any]) -> str:
    network = about["encoder"]["name"]
    if not about["experiment"]:
        return f"An image encoder ({network}) with the weights of {about['weights']}, exported by bgsweep."
    trained = about["experiment"]
    augmented = f" with background augmentations ({_PAPER})" if _background(trained["background"]) else ""
    return f"An image encoder ({network}), pretrained by the method `{trained['method']['name']}`{augmented}."


def _use(about: Mapping[str, Any], load: Sequence[str]) -> str:
    given = about["preprocessing"]
    normalized = (
        "The network normalizes them itself."
        if given["normalized_by_the_network"]
        else f"Normalize them by mean {given['mean']} and standard deviation {given['std']}."
    )
    code = "\n".join(load)
    return (
        f"## Use\n\n```python\n{code}\n```\n\n"
        f"Input: RGB images, float32 (N, 3, H, W), from 0 to 1. {normalized} Evaluations resize the shorter side to "
        f"{given['resize']} px, by the mean of the pixels that fall on each new one, and crop the central square of "
        f"{given['size']} px. Output: {about['features']} features for each image."
    )


def _training(about: Mapping[str, Any]) -> str:
    experiment, images = about["experiment"], about["lineage"].get("images", {})
    training, optimizer = experiment["training"], experiment["optimizer"]
    count = images.get("train", {}).get("count")
    rows = [
        ("images", f"{count}, of {about['data']}" if count else about["data"]),
        ("method", _method(experiment["method"])),
        ("background augmentations", _background(experiment["background"]) or "none"),
        ("size of the views", f"{experiment['views']['size']} px"),
        ("epochs, batch size", f"{training['epochs']}, {training['batch_size']}"),
        ("optimizer", f"`{optimizer['name']}`, lr: {optimizer['lr']}, weight decay: {optimizer['weight_decay']}"),
        ("seed", experiment["seed"]),
    ]
    if about["started_from"]:
        rows.append(("started from weights of digest", about["started_from"]))
    return "## Training\n\n" + _table(("", ""), rows)


def _method(section: Mapping[str, Any]) -> str:
    rest = [f"{key}: {value}" for key, value in section.items() if key != "name" and value is not None]
    return ", ".join([f"`{section['name']}`", *rest])


def _background(section: Mapping[str, Any]) -> str:
    on = [f"{name} with probability {section[key]}" for key, name in _AUGMENTATIONS if section[key]]
    return f"{', '.join(on)}; backgrounds of other images: {section['donor']}" if on else ""


def _evaluation(lineage: Mapping[str, Any]) -> str:
    """The values on the test images, or, where there are none, on those that the search was guided by."""
    values = lineage["metrics"]
    tested = [each for each in values if each["name"].startswith("test/")]
    rows = [
        (f"`{each['name']}`", f"{each['value']:.4f}", _interval(each, values), each.get("count", ""))
        for each in tested or values
    ]
    if not rows:
        return ""
    told = ["" if tested else "Measured on validation images only, which may have guided the choice of this encoder."]
    told += [_INTERVALS if any(row[2] for row in rows) else ""]
    if reason := lineage.get("reason"):
        told.append(f"Registered: {reason}.")
    table = _table(("value", "share", "95 % interval", "images"), rows)
    return "\n\n".join(["## Evaluation", table, *filter(None, told)])


def _interval(each: Mapping[str, Any], values: Iterable[Mapping[str, Any]]) -> str:
    """The interval of an accuracy by kNN or a linear probe; empty for other values, whose error is not known here."""
    probe, _, name = each["name"].rpartition("/")
    if "count" not in each or not probe.endswith(("/knn", "/linear")):
        return ""
    if name != "bg_gap":
        return _shown(wilson(each["value"], each["count"])) if 0 <= each["value"] <= 1 else ""
    found = {one["name"]: one for one in values if one.get("count") == each["count"]}
    pair = [found.get(f"{probe}/{variant}") for variant in ("mixed_rand", "mixed_same")]
    if None in pair:
        return ""
    shares = [one["value"] for one in pair if one]
    spans = [wilson(share, each["count"]) for share in shares]
    return _shown(difference(shares[0], spans[0], shares[1], spans[1]))


def _shown(interval: Interval) -> str:
    return f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def _lineage(lineage: Mapping[str, Any]) -> str:
    rows = [(label, f"`{lineage[key]}`") for key, label in _RECORDED if lineage.get(key)]
    sets = lineage.get("images", {})
    rows += [(f"digest of the {context} images", f"`{each['digest']}`") for context, each in sets.items()]
    return "## Lineage\n\n" + _table(("", ""), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
