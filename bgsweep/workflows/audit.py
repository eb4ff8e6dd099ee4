"""`bgsweep audit`: an encoder's reliance on backgrounds and other shortcuts, measured on a folder of images."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bgsweep import __version__
from bgsweep.config import SuiteConfig
from bgsweep.config.evaluation import VARIANTS, Evaluate
from bgsweep.data.memory import keep_freed_memory
from bgsweep.errors import UserError
from bgsweep.evaluation.audit.backgrounds import variant_images
from bgsweep.evaluation.audit.measure import Measure
from bgsweep.evaluation.audit.measures import MEASURES, run_measures
from bgsweep.evaluation.audit.outcome import KeptOutcomes, Outcome
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.audit.summary import RESAMPLINGS, table, verdict
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.kept import key_of, network_digest
from bgsweep.report.audit_page import audit_page
from bgsweep.storage.atomic import write_whole
from bgsweep.tracking.encoders import Loaded, load_model
from bgsweep.training.device import fastest
from bgsweep.training.encode import IN_CACHE
from bgsweep.workflows.audit_images import LIMIT, AuditImages, audit_images
from bgsweep.workflows.audit_log import AuditLog, audit_log
from bgsweep.workflows.evaluate import chosen_device, on_device

_FORMAT = 1  # of what is kept; a change of a measure's meaning raises it
PART = 100
"""Images that measures with many versions of each take, unless they are asked to take all."""

Precision = Literal["auto", "fp32"]
"""Of encoding; `auto`: the shorter one in which the device trains fastest, if there is one."""


Outcomes = Mapping[str, Outcome]
"""By the measure's name."""


@dataclass(frozen=True)
class _Opened:
    """An encoder, ready to be measured, and the folder in which its outcomes are kept."""

    model: str
    origin: dict[str, Any]
    digest: str
    folder: Path
    subject: Subject


@dataclass(frozen=True)
class _How:
    """Settings of measuring; `part` None: every measure takes all images."""

    seed: int
    device: str
    part: int | None
    precision: Precision


def audit(
    models: Sequence[str],
    images: Path,
    masks: Path | None,
    out: Path,
    store: Path,
    limit: int | None = None,
    seed: int = 0,
    measures: Sequence[Measure] = MEASURES,
    device: str = "auto",
    full: bool = False,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Measure encoders on a folder of images, and write a page and, beside it, its numbers as JSON.

    What was measured of the same weights and images before is not measured again.

    Args:
        models: as for `evaluate`.
        images: class folders, or images without classes.
        masks: folder that mirrors `images`; None makes them.
        limit: the largest number of images; a sample is drawn of more. None: 1,000, or with `full` no limit.
        full: every measure takes all of them.

    Returns:
        What the JSON file holds, and `page`.

    Raises:
        UserError: a model, the images or the masks cannot be used, or no measure succeeded.
    """
    _check_out(out)
    keep_freed_memory()
    limit = limit or (sys.maxsize if full else LIMIT)
    how = _How(seed, device, None if full else PART, precision)
    # Loaded first: a model that is not there should be reported before masks are made.
    loaded = [load_model(model, 224, store) for model in models]
    with audit_log() as log:
        found = audit_images(images, masks, limit, seed, store)
        opened = [_opened(model, one, found, how) for model, one in zip(models, loaded, strict=True)]
        for each, one in zip(opened, loaded, strict=True):
            log.open_run(each.folder, each.model, one, found.about)
        audited = [(each, _measured(each, measures, log)) for each in opened]
        record = _record(audited, found, seed, measures)
        page = audit_page({**record, "variants": _pictures(found, seed)})
        plain = _without_images(record)
        write_whole(out, page.encode())
        write_whole(out.with_suffix(".json"), json.dumps(plain, indent=1).encode() + b"\n")
        log.finish(plain, page)
    return {**plain, "page": str(out)}


def _check_out(out: Path) -> None:
    if out.suffix == ".json" or out.is_dir():
        raise UserError(f"--out {out}: name the page's file, such as audit.html; its numbers go into a .json beside it")
    if not os.access(out.absolute().parent, os.W_OK):
        raise UserError(
            f"--out {out}: the folder {out.absolute().parent} is not there or cannot be written; name another"
        )


def _opened(model: str, loaded: Loaded, images: AuditImages, how: _How) -> _Opened:
    size = loaded.size or 224
    digest = network_digest(loaded.encoder)
    device = chosen_device(how.device)
    autocast = fastest("", device) if how.precision == "auto" else None
    dtype = str(autocast or torch.float32).removeprefix("torch.")
    network = on_device(loaded, how.device, autocast, IN_CACHE if device.type == "cpu" else None)
    # Features and outcomes are of all images that a measure takes, and of a precision.
    folder = images.folder / key_of(network=digest, size=size, part=how.part, precision=dtype, format=_FORMAT)
    config = SuiteConfig(evaluate=Evaluate(seed=how.seed), size=size)
    subject = Subject(network, config, images.splits, images.labelled, how.part, folder / "features")
    return _Opened(model, {**loaded.origin, "precision": dtype}, digest, folder, subject)


def _measured(opened: _Opened, measures: Sequence[Measure], log: AuditLog) -> Outcomes:
    """Outcomes of all measures, told and logged as they come."""

    def tell(measure: Measure, outcome: Outcome) -> None:
        took = f" ({outcome.seconds:.0f} s)" if outcome.status == "measured" else f": {outcome.reason}"
        print(f"{opened.model}: {measure.name} {outcome.status}{took}", file=sys.stderr, flush=True)
        log.log(opened.folder, measure.name, outcome)

    outcomes = run_measures(opened.subject, measures, KeptOutcomes(opened.folder), tell)
    if all(outcome.status == "failed" for outcome in outcomes.values()):
        raise UserError(f"{opened.model}: no measure succeeded; the first: {next(iter(outcomes.values())).reason}")
    return outcomes


def _record(
    audited: Sequence[tuple[_Opened, Outcomes]], images: AuditImages, seed: int, measures: Sequence[Measure]
) -> dict[str, Any]:
    subject = audited[0][0].subject
    rows = {one.name: table([outcomes[one.name] for _, outcomes in audited], seed) for one in measures}
    return {
        "bgsweep": __version__,
        "images": {**images.about, "usable": len(subject.usable), "part": len(subject.part)},
        "labelled": images.labelled,
        "intervals": f"95 % percentile intervals of {RESAMPLINGS} paired resamplings of the images",
        "models": [
            {"model": each.model, "origin": each.origin, "digest": each.digest, "verdict": verdict(rows, number)}
            for number, (each, _) in enumerate(audited)
        ],
        "measures": [
            {
                "name": one.name,
                "title": one.title,
                "text": one.text,
                "rows": rows[one.name],
                "models": [_outcome(outcomes[one.name]) for _, outcomes in audited],
            }
            for one in measures
        ],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    plain = {"status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds}
    return plain | {"details": outcome.found.details if outcome.found else {}}


def _pictures(images: AuditImages, seed: int) -> dict[str, Any]:
    """The same few images in all variants."""
    shown = [name for name in VARIANTS if images.labelled or name not in ("mixed_rand", "mixed_next")]
    variants = VariantSet(images.splits.test, None, Evaluate(seed=seed), 224)
    return {"names": shown, "columns": variant_images(variants, shown)}


def _without_images(value: Any) -> Any:
    """The record without inline images, of which the page is made."""
    if isinstance(value, dict):
        return {key: _without_images(each) for key, each in value.items() if not _is_image(each)}
    if isinstance(value, list):
        return [_without_images(each) for each in value if not _is_image(each)]
    return value


def _is_image(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("data:")
