"""The study's runs through the sweep machinery, and their judgement; what is finished is kept by its digest."""

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bgsweep.config import resolve
from bgsweep.storage.tree import write_file
from bgsweep.sweep.driver import sweep
from bgsweep.sweep.events import replay
from bgsweep.sweep.journal import read_journal
from bgsweep.sweep.manifest import sweeps
from bgsweep.sweep.trial import dump
from studies.background_shortcut.plan import Planned

Judged = dict[str, npt.NDArray[np.float64]]
"""Each test image's part in an accuracy, or in BG-gap, by the value's name; the mean is the value."""

LABELLED = 0.1


def train_missing(runs: Sequence[Planned], store: Path) -> dict[str, Path]:
    """Train what the store does not have; give the checkpoints of all runs by their digests.

    One seed comes after another, so that what is interrupted has seeds whose arms can be compared.
    """
    for method in dict.fromkeys(run.method for run in runs):
        have = _finished(store)
        missing = [run for run in runs if run.method == method and run.experiment.digest not in have]
        if missing:
            sweep(resolve(_sweep_of(sorted(missing, key=lambda run: run.seed))), store)
    have = _finished(store)
    return {run.experiment.digest: have[run.experiment.digest] for run in runs if run.experiment.digest in have}


def judged(run: Planned, checkpoint: Path, store: Path) -> Judged:
    """A run's encoder on each test image, with probes trained on biased and on unbiased images."""
    kept = store / "study" / f"{run.experiment.digest}.npz"
    if not kept.exists():
        print(f"judging {run.method} {run.arm} rho {run.rho:g} seed {run.seed}", file=sys.stderr, flush=True)
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **_judge(run, checkpoint))
        write_file(kept, content.getvalue())
    with np.load(kept) as found:
        return dict(found)


def _finished(store: Path) -> dict[str, Path]:
    """Checkpoints of all trials of the store that ran to their end and are still there, by their digests."""
    found = {}
    for folder, _ in sweeps(store):
        for record in replay(read_journal(folder)).values():
            if record.status == "completed" and record.checkpoint and Path(record.checkpoint).exists():
                found[record.digest] = Path(record.checkpoint)
    return found


def _sweep_of(runs: Sequence[Planned]) -> dict[str, Any]:
    """A sweep whose fixed points are the runs, and nothing else."""
    keys = list(dict.fromkeys(key for run in runs for key in run.values))
    file = runs[0].file
    points = [{key: run.values.get(key, file.experiment.value(key)) for key in keys} for run in runs]
    options = {key: {"choice": _different([point[key] for point in points])} for key in keys}
    tree = dump(file)
    name = f"study-{runs[0].method}"
    tree |= {"name": name, "space": {**options, "points": points}, "register": {"name": f"bgsweep-{name}"}}
    tree["search"] |= {"algorithm": "random", "trials": len(points), "baseline": False, "scheduler": "none"}
    tree["search"] |= {"keep_checkpoints": None}  # all are judged, not the best ten
    return tree


def _different(values: Sequence[Any]) -> list[Any]:
    """Each value once; schedules are mappings, which no set takes."""
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _judge(run: Planned, checkpoint: Path) -> Judged:
    from bgsweep.data import open_splits
    from bgsweep.evaluation.evaluators.backgrounds import PROBES, on_variants
    from bgsweep.training.checkpoint import load_trained
    from bgsweep.training.final_evaluation import final_context

    trained, data = load_trained(checkpoint), run.experiment.data
    splits = open_splits(data)
    plain = open_splits(data.model_copy(update={"shortcut": None})).train
    unbiased = replace(splits, train=plain, kept={})
    found: Judged = {}
    for name, each in (("biased", splits), ("unbiased", unbiased)):
        context = final_context(run.file, trained, each)
        for probe in PROBES:
            found |= {f"{name}/{one.name}": one.hits / one.counted for one in on_variants(context, probe)}
    return found | {"unbiased/few_10": _few(run, trained, unbiased)}


def _few(run: Planned, trained: Any, splits: Any) -> npt.NDArray[np.float64]:
    """The linear probe on a tenth of the labels of unbiased images: 1 for each test image that it has right."""
    from bgsweep.data.datasets.wrappers import Subset
    from bgsweep.evaluation.datasets.background_variants import centre_crops
    from bgsweep.evaluation.evaluators.few_labels import drawn
    from bgsweep.evaluation.evaluators.linear import fit_linear
    from bgsweep.evaluation.feature_cache import FeatureCache
    from bgsweep.evaluation.features import extract
    from bgsweep.training.device import select_device
    from bgsweep.training.encode import encode_with

    settings, size = run.file.evaluate, run.experiment.views.size
    device = select_device(trained.experiment).device
    bench = FeatureCache(encode_with(trained.encoder.to(device), device), splits, settings, size, "test")
    part = Subset(splits.train, drawn(splits.train, LABELLED, settings.seed), "few labels")
    features = extract(bench.encode, centre_crops(part, size, settings.batch_size), len(part))
    head, test = fit_linear(features, settings.linear, bench.classes), bench.variant("original")
    return np.asarray(head.predict(test.values) == test.labels, np.float64)
