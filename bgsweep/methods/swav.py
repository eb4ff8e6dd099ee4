"""SwAV (Caron et al. 2020): predict the cluster that one crop is assigned to from the other crops."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import SwAVConfig
from bgsweep.methods.base import Method, Step, Views, embedding_std, encode_crops, prototype_entropy, swapped_loss
from bgsweep.methods.distributed import gather, rank, world_size
from bgsweep.methods.sinkhorn import sinkhorn
from bgsweep.models import ImageEncoder, mlp

LARGE = 2
"""Number of crops that are assigned to prototypes; the small ones only predict."""


class SwAV(Method):
    """SwAV with multi-crop and, for small batches, the queue.

    The queue holds embeddings of earlier batches of all workers and is the same on each of them, so that a run can
    resume with another number of workers; each worker passes its share of it to Sinkhorn. As published it begins to
    fill in epoch `queue_start`, and is used once it is full. With `training.accumulate` Sinkhorn balances each part of
    a batch by itself: keep the part, or part and queue together, well above the number of prototypes.
    """

    queue: Tensor
    enqueued: Tensor

    def __init__(self, config: SwAVConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = mlp(encoder.feature_dim, config.hidden_dim, config.embedding_dim, batch_norm=True)
        self.prototypes = nn.Linear(config.embedding_dim, config.prototypes, bias=False)
        self.register_buffer("queue", torch.zeros(config.queue_size, LARGE, config.embedding_dim))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.long))
        self._new_embeddings: list[Tensor] = []
        # `enqueued` as the host knows it: shapes depend on it, and to read the buffer would make the host wait.
        self._enqueued = 0
        self.register_load_state_dict_post_hook(_read_enqueued)  # type: ignore[no-untyped-call]

    def forward(self, views: Views) -> Step:
        self._normalize_prototypes()
        embeddings = self._embed(views.images)
        with torch.autocast(embeddings.device.type, enabled=False):
            scores = self.prototypes(embeddings)
            codes = self._assign(scores[:LARGE].detach())
            loss = swapped_loss(scores, codes, self.config.temperature)
        if self.config.queue_size and views.epoch >= self.config.queue_start:
            self._new_embeddings.append(embeddings[:LARGE].detach().transpose(0, 1))
        entropy = prototype_entropy(scores.detach() / self.config.temperature)
        return Step(loss, {"embedding_std": embedding_std(embeddings[0]), "prototype_entropy": entropy})

    def _embed(self, images: list[Tensor]) -> Tensor:
        """Unit vectors (V, B, D) of the crops: one pass of the encoder per crop size, one of the head for all."""
        embeddings = F.normalize(self.projector(encode_crops(self.encoder, images)).float(), dim=1)
        return embeddings.view(len(images), -1, embeddings.shape[1])

    @torch.no_grad()
    def _normalize_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    @torch.no_grad()
    def _assign(self, scores: Tensor) -> Tensor:
        """Codes of the large crops (2, B, K), each balanced by itself, with the queue before it once that is full."""
        batch = scores.shape[1]
        if self.config.queue_size and self._enqueued >= self.config.queue_size:
            queue_scores = self.prototypes(self.queue.chunk(world_size())[rank()]).transpose(0, 1)
            scores = torch.cat([queue_scores, scores], dim=1)
        codes = [sinkhorn(crop, self.config.epsilon, self.config.sinkhorn_iterations) for crop in scores]
        return torch.stack(codes)[:, -batch:]

    def after_backward(self, step: int) -> None:
        """Freeze the prototypes at first; without a gradient neither momentum nor weight decay changes them."""
        if step < self.config.freeze_prototypes:
            self.prototypes.weight.grad = None

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Enqueue the large crops of all workers' batches."""
        for embeddings in self._new_embeddings:
            batch = gather(embeddings)
            start = self._enqueued % len(self.queue)
            self.queue[start : start + len(batch)] = batch
            self._enqueued += len(batch)
            self.enqueued.fill_(self._enqueued)
        self._new_embeddings.clear()


def _read_enqueued(method: SwAV, _: object) -> None:
    method._enqueued = int(method.enqueued)
