"""What each command calls: a function of the parsed options that gives the command's result.

What they need is imported in them, so that one command does not wait for another's libraries.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from bgsweep.errors import NO_CREDENTIALS, UserError, has_password, without_password

DEFAULT_STORE = "bgsweep_runs"

Result = dict[str, Any]


def pretrain(options: argparse.Namespace) -> Result:
    from bgsweep.config import load, review
    from bgsweep.workflows.pretrain import pretrain

    file = load(options.file, options.overrides, searched=False)
    review(file)
    return pretrain(file, _folder(options), fresh=options.fresh)


def sweep(options: argparse.Namespace) -> Result:
    words = [] if options.file is None else [str(options.file)]
    if options.resume is not None:
        if any("=" not in word for word in words):
            raise UserError(f"sweep: both {words[0]} and --resume {options.resume} are named; leave one of them out")
        from bgsweep.sweep.driver import resume

        return resume(options.resume, _store(options), [*words, *options.overrides])
    if not words:
        raise UserError("sweep: nothing is named; write `bgsweep sweep FILE` or `bgsweep sweep --resume NAME`")
    from bgsweep.config import load

    file = load(options.file, options.overrides)
    from bgsweep.sweep.driver import sweep

    return sweep(file, _store(options), options.name)


def plan(options: argparse.Namespace) -> Result:
    from bgsweep.config import load, review_search

    file = load(options.file, options.overrides)
    review_search(file)
    from bgsweep.sweep.cost import plan

    return plan(file, options.gpus, options.hourly_price, options.epoch_seconds)


def status(options: argparse.Namespace) -> Result:
    if options.address:
        from bgsweep.distributed import jobs

        return jobs.status(options.name, options.store and str(options.store), options.address)
    from bgsweep.sweep.control import status

    return status(options.name, _store(options))


def submit(options: argparse.Namespace) -> Result:
    from bgsweep.distributed.jobs import submit

    return submit(
        options.file, options.overrides, options.address, options.store, options.code, options.env, options.wait
    )


def stop(options: argparse.Namespace) -> Result:
    if options.address:
        from bgsweep.distributed import jobs

        return jobs.stop(options.name, options.store and str(options.store), options.address)
    from bgsweep.sweep.control import stop

    return stop(options.name, _store(options))


def models(options: argparse.Namespace) -> Result:
    from bgsweep.tracking import tracking_uri
    from bgsweep.tracking.registry import models

    return models(tracking_uri(_store(options)), options.name)


def promote(options: argparse.Namespace) -> Result:
    from bgsweep.tracking import tracking_uri
    from bgsweep.tracking.registry import promote

    return promote(tracking_uri(_store(options)), options.name, options.version, options.alias)


def report(options: argparse.Namespace) -> Result:
    from bgsweep.sweep.report import report

    return report(options.name, _store(options), options.out)


def policy(options: argparse.Namespace) -> Result:
    from bgsweep.sweep.policy import policy

    return policy(options.name, _store(options), options.out, options.trial)


def evaluate(options: argparse.Namespace) -> Result:
    if options.suite is not None or options.data:
        if options.file:
            raise UserError(
                f"{options.file}: with --suite the images are named in a file of their own; write --data FILE"
            )
        from bgsweep.workflows.evaluate import evaluate

        return evaluate(
            options.model, "quick" if options.suite is None else options.suite, options.data, _folder(options)
        )
    if options.file is None:
        raise UserError(
            "evaluate: nothing says what to measure; name a --suite (such as quick), or the YAML file of the "
            "checkpoint's experiment"
        )
    from bgsweep.config import load

    file = load(options.file, options.overrides, searched=False)
    from bgsweep.training.run import evaluate_final, load_trained

    return evaluate_final(file, load_trained(options.model)).public()


def compare(options: argparse.Namespace) -> Result:
    from bgsweep.workflows.evaluate import compare

    return compare(options.models, options.suite, options.data, _folder(options))


def backgrounds_make(options: argparse.Namespace) -> Result:
    from bgsweep.config import Evaluate
    from bgsweep.data.datasets.folder import Folder
    from bgsweep.evaluation import VariantSet, variant_sheet
    from bgsweep.evaluation.datasets.export_variants import write_release

    if options.size < 8 or options.seed < 0:
        raise UserError(
            f"--size {options.size} --seed {options.seed}: give a size of 8 pixels or more, and a seed from 0 on"
        )
    source = Folder(options.images, ".", options.masks)
    variants = VariantSet(source, None, Evaluate(seed=options.seed), options.size)
    if len(set(source.labels.tolist())) < 2:
        raise UserError(f"{options.images}: one class, and Mixed-Rand needs another's backgrounds; give class folders")
    return write_release(variants, options.out, variant_sheet(variants), lambda line: print(line, file=sys.stderr))


def preview(options: argparse.Namespace) -> Result:
    from bgsweep.config import load, review

    file = load(options.file, options.overrides, searched=False)
    review(file)
    from bgsweep.workflows.preview import preview

    return preview(file, options.out, options.images)


def pack(options: argparse.Namespace) -> Result:
    from bgsweep.data.datasets.pack_writer import make_pack

    return make_pack(options.images, options.masks, options.out)


def masks_make(options: argparse.Namespace) -> Result:
    from bgsweep.workflows.make_masks import make_masks

    return make_masks(options.images, options.out, options.method, options.weights, options.workers)


def masks_train(options: argparse.Namespace) -> Result:
    from bgsweep.config import mask_training

    config = mask_training(options.overrides)
    from bgsweep.workflows.train_masks import train_masks

    return train_masks(options.images, options.out, options.encoder, config, options.workers)


def masks_score(options: argparse.Namespace) -> Result:
    from bgsweep.masks.score import score_trees
    from bgsweep.storage.tree import open_tree, write_file

    result, table = score_trees(open_tree(options.masks), open_tree(options.truth))
    if options.table:
        write_file(options.table, table.encode("utf-8", "surrogateescape"))
    return result


def masks_show(options: argparse.Namespace) -> Result:
    from bgsweep.masks.contact_sheet import contact_sheet, encode_sheet
    from bgsweep.storage.tree import open_tree, write_file

    sheet, result = contact_sheet(open_tree(options.images), open_tree(options.masks), options.shown)
    write_file(options.out, encode_sheet(sheet))
    return {"picture": str(options.out), **result}


def doctor(options: argparse.Namespace) -> Result:
    from bgsweep.workflows.doctor import diagnose

    return diagnose(options.file, _folder(options))


def _store(options: argparse.Namespace) -> str | Path:
    given: str | Path = options.store or place(os.environ.get("BGSWEEP_STORE") or DEFAULT_STORE)
    if isinstance(given, Path):
        try:
            given.exists()
        except (OSError, ValueError) as error:  # too long, a loop of links, a NUL
            raise UserError(f"--store {given}: {getattr(error, 'strerror', None) or error}") from error
    return given


def _folder(options: argparse.Namespace) -> Path:
    store = _store(options)
    if not isinstance(store, Path):
        raise UserError(f"--store {store}: only sweeps keep their checkpoints at a URI; name a folder")
    return store


def place(text: str) -> str | Path:
    """What ``--store`` names: a folder, or a URI."""
    if "://" not in text:
        return Path(text).expanduser()
    if has_password(text):
        raise UserError(f"--store {without_password(text)}: {NO_CREDENTIALS}")
    return text
