"""A student of `bgsweep masks train` against its teachers and U2-Net, on images whose foreground is known exactly.

    python benchmarks/unsupervised_masks.py COMPOSITES [key=value ...] --encoder state.pt --record

COMPOSITES is what scripts/composite_stamps.py has written: train (images alone), held_out and held_out_truth. What
has been made lies in --work and is not made again: interrupted, the same command goes on.
"""

from pathlib import Path
from typing import Any

from common import markdown, parser_of, report

MEASURES = ("max_f_beta", "mean_f_beta", "mae", "iou")


def scored(composites: Path, work: Path, method: Any, weights: str | None) -> dict[str, Any]:
    """Make and score the masks of the held-out images."""
    from bgsweep.masks.score import score_trees
    from bgsweep.storage.tree import LocalTree
    from bgsweep.workflows.make_masks import make_masks

    made = make_masks(str(composites / "held_out"), str(work / method), method, weights, workers=1)
    scores, _ = score_trees(LocalTree(work / method), LocalTree(composites / "held_out_truth"))
    return {"method": method, "images": made["masks"], **{key: scores[key] for key in MEASURES}}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("composites", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as of `bgsweep masks train`")
    parser.add_argument("--encoder", type=Path, help="checkpoint of a self-supervised run")
    parser.add_argument("--work", type=Path, default=Path("unsupervised_masks"), help="(default: %(default)s)")
    parser.add_argument("--u2net", metavar="FILE", help="also score U2-Net-P, from this file")
    options = parser.parse_args()
    from bgsweep.config import mask_training
    from bgsweep.masks.registry import HANDCRAFTED
    from bgsweep.workflows.train_masks import train_masks

    student = options.work / "student.onnx"
    config = mask_training(options.overrides)
    said = train_masks(str(options.composites / "train"), student, options.encoder, config, workers=1)
    runs: list[tuple[Any, str | None]] = [(name, None) for name in HANDCRAFTED]
    runs += [("usps", str(student)), *([("u2netp", options.u2net)] if options.u2net else [])]
    results = [scored(options.composites, options.work, method, weights) for method, weights in runs]
    rows = [[one["method"], str(one["images"]), *(f"{one[key]:.4f}" for key in MEASURES)] for one in results]
    title = f"Masks learnt from {said['images']} composites, on held-out composites with exact alpha"
    given = " ".join([*options.overrides, *(["--encoder state.pt"] if options.encoder else [])])
    command = f"python benchmarks/unsupervised_masks.py COMPOSITES {given}".strip()
    report(options, title, command, markdown(("method", "images", "max F", "mean F", "MAE", "IoU"), rows), results)


if __name__ == "__main__":
    main()
