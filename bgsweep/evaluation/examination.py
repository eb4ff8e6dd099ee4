"""One encoder, one suite file: what evaluators share, each made once and only if somebody asks for it."""

from functools import cached_property

import torch
from torch import Tensor

from bgsweep.config import SuiteFile
from bgsweep.data import UNLABELLED, Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.bench import Bench
from bgsweep.evaluation.features import Features
from bgsweep.evaluation.imagenet_classes import wnids
from bgsweep.evaluation.linear import LinearHead, fit_linear
from bgsweep.evaluation.listing import Listing, See, squares
from bgsweep.evaluation.subject import Head, Subject


class Examination:
    """The subject with its sets.

    Args:
        splits: the user's labelled photographs; None where the file names none.
    """

    def __init__(self, subject: Subject, file: SuiteFile, splits: Splits | None) -> None:
        self.subject = subject
        self.file = file
        self.splits = splits
        self._kept: dict[str, Tensor] = {}

    @cached_property
    def bench(self) -> Bench:
        """Features of the user's photographs.

        Raises:
            UserError: there are none, or some without classes.
        """
        if self.splits is None:
            raise UserError("data: no labelled photographs are named; set data.images (and data.masks)")
        for source in (self.splits.train, self.splits.test):
            if UNLABELLED in source.labels:
                raise UserError(f"{source.name}: photographs in class folders are needed to measure accuracy")
        return Bench(self.subject.encode, self.splits, self.file.evaluate, self.file.size, "test")

    @cached_property
    def linear(self) -> LinearHead:
        """The linear probe on the user's training photographs."""
        return fit_linear(self.bench.train(), self.file.evaluate.linear, self.bench.classes)

    @cached_property
    def test(self) -> Features:
        return self.bench.variant("original")

    def check_classifier(self) -> None:
        """Refuse what has no way to ImageNet's classes.

        Raises:
            UserError: the encoder has no classifier of them, and the user's photographs are not ImageNet's.
        """
        if self.subject.head is None and not (self.splits is not None and tuple(self.splits.train.classes) == wnids()):
            raise UserError(
                "this encoder has no classifier of ImageNet's 1000 classes; set data.images to ImageNet (train and "
                "validation, a folder a wnid), so that a linear probe can be trained"
            )

    @cached_property
    def classifier(self) -> tuple[Head, str]:
        """Logits of ImageNet's 1000 classes from features, and a word on where they come from."""
        self.check_classifier()
        if self.subject.head is not None:
            return self.subject.head, "the model's own"
        return self.linear.logits, f"linear probe on {self.bench.splits.train.name}"

    def logits(self, listing: Listing, see: See | None = None, keep: bool = False) -> Tensor:
        """Logits (N, 1000) of listed pictures; kept for the next evaluator only where that is said."""
        if listing.name in self._kept:
            return self._kept[listing.name]
        head, _ = self.classifier
        see = see or squares(self.file.pictures)
        batches = listing.batches(see, self.file.evaluate.batch_size, self.file.threads)
        with torch.no_grad():
            parts = [head(self.subject.encode(torch.from_numpy(images))) for images in batches]
        logits = torch.cat(parts)
        if keep:
            self._kept[listing.name] = logits
        return logits
