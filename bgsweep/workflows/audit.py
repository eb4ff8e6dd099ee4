"""`bgsweep audit`: an encoder's reliance on backgrounds and other shortcuts, measured on a folder of images."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgsweep import __version__
from bgsweep.config import SuiteConfig
from bgsweep.config.evaluation import Evaluate
from bgsweep.errors import UserError
from bgsweep.evaluation.audit.backgrounds import variant_images
from bgsweep.evaluation.audit.kept import KeptOutcomes, Outcome, key_of, network_digest
from bgsweep.evaluation.audit.measure import Measure
from bgsweep.evaluation.audit.measures import MEASURES, run_measures
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.audit.summary import RESAMPLINGS, table, verdict
from bgsweep.report.audit_page import audit_page
from bgsweep.storage.atomic import write_whole
from bgsweep.tracking.encoders import Loaded, load_model
from bgsweep.workflows.audit_images import LIMIT, AuditImages, audit_images
from bgsweep.workflows.evaluate import on_device

_FORMAT = 1  # of what is kept; a change of a measure's meaning raises it
_PART = 200


@dataclass(frozen=True)
class _Audited:
    """An encoder with its outcomes, by measure."""

    model: str
    origin: dict[str, Any]
    digest: str
    outcomes: dict[str, Outcome]


def audit(
    models: Sequence[str],
    images: Path,
    masks: Path | None,
    out: Path,
    store: Path,
    limit: int = LIMIT,
    seed: int = 0,
    measures: Sequence[Measure] = MEASURES,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure encoders on a folder of images, and write a page and, beside it, its numbers as JSON.

    What was measured of the same weights and images before is not measured again.

    Args:
        models: as for `evaluate`.
        images: class folders, or images without classes.
        masks: folder that mirrors `images`; None makes them.
        limit: the largest number of images; a sample is drawn of more.

    Returns:
        What the JSON file holds, and `page`.

    Raises:
        UserError: a model, the images or the masks cannot be used, or no measure succeeded.
    """
    _check_out(out)
    # Loaded first: a model that is not there should be reported before masks are made.
    loaded = [load_model(model, 224, store) for model in models]
    found = audit_images(images, masks, limit, seed, store)
    audited = [_audited(model, one, found, seed, measures, device) for model, one in zip(models, loaded, strict=True)]
    if all(outcome.status == "failed" for one in audited for outcome in one.outcomes.values()):
        raise UserError(f"no measure succeeded; the first: {next(iter(audited[0].outcomes.values())).reason}")
    record = _record(audited, found, seed, measures)
    record["variants"] = _pictures(found, seed)
    write_whole(out, audit_page(record).encode())
    plain = {key: value for key, value in record.items() if key != "variants"}
    write_whole(out.with_suffix(".json"), json.dumps(_without_images(plain), indent=1).encode() + b"\n")
    return {**_without_images(plain), "page": str(out)}


def _check_out(out: Path) -> None:
    if out.suffix == ".json" or out.is_dir():
        raise UserError(f"--out {out}: name the page's file, such as audit.html; its numbers go into a .json beside it")
    if not os.access(out.absolute().parent, os.W_OK):
        raise UserError(
            f"--out {out}: the folder {out.absolute().parent} is not there or cannot be written; name another"
        )


def _config(seed: int, size: int) -> SuiteConfig:
    return SuiteConfig(evaluate=Evaluate(seed=seed), size=size)


def _audited(
    model: str, loaded: Loaded, images: AuditImages, seed: int, measures: Sequence[Measure], device: str
) -> _Audited:
    size = loaded.experiment.views.size if loaded.experiment else 224
    digest = network_digest(loaded.encoder)
    folder = images.folder / key_of(network=digest, size=size, part=_PART, format=_FORMAT)
    subject = Subject(
        on_device(loaded, device), _config(seed, size), images.splits, images.labelled, _PART, folder / "features"
    )

    def say(measure: Measure, outcome: Outcome) -> None:
        took = f" ({outcome.seconds:.0f} s)" if outcome.status == "measured" else f": {outcome.reason}"
        print(f"{model}: {measure.name} {outcome.status}{took}", file=sys.stderr, flush=True)

    outcomes = run_measures(subject, measures, KeptOutcomes(folder), say)
    return _Audited(model, loaded.origin, digest, outcomes)


def _record(audited: Sequence[_Audited], images: AuditImages, seed: int, measures: Sequence[Measure]) -> dict[str, Any]:
    rows = {one.name: table([each.outcomes[one.name] for each in audited], seed) for one in measures}
    return {
        "bgsweep": __version__,
        "images": images.about,
        "labelled": images.labelled,
        "intervals": f"95 % percentile intervals of {RESAMPLINGS} paired resamplings of the images",
        "models": [
            {"model": each.model, "origin": each.origin, "digest": each.digest, "verdict": verdict(rows, number)}
            for number, each in enumerate(audited)
        ],
        "measures": [
            {
                "name": one.name,
                "title": one.title,
                "text": one.text,
                "rows": rows[one.name],
                "models": [_outcome(each.outcomes[one.name]) for each in audited],
            }
            for one in measures
        ],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    plain = {"status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds}
    return plain | {"details": outcome.found.details if outcome.found else {}}


def _pictures(images: AuditImages, seed: int) -> dict[str, Any]:
    """The first images in all variants."""
    from bgsweep.config.evaluation import VARIANTS
    from bgsweep.evaluation.datasets.background_variants import VariantSet

    shown = [name for name in VARIANTS if images.labelled or name not in ("mixed_rand", "mixed_next")]
    variants = VariantSet(images.splits.test, None, Evaluate(seed=seed), 224)
    images.about["usable"] = len(variants.usable)
    return {"names": shown, "columns": variant_images(variants, shown)}


def _without_images(value: Any) -> Any:
    """The record without inline images, of which the page is made."""
    if isinstance(value, dict):
        return {key: _without_images(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_images(each) for each in value if not (isinstance(each, str) and each.startswith("data:"))]
    return value
