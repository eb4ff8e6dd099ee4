"""MoCo-v2 (He et al. 2020; Chen et al. 2020): contrast a query with its key against a queue of earlier keys."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import MoCoV2Config
from bgsweep.methods.base import Method, Step, Views, ema_update, embedding_std, own_similarities
from bgsweep.methods.distributed import gather, gather_on_host, rank, world_size
from bgsweep.models import ImageEncoder, mlp, to_unit


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float, extra: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of picking each query's key among the queue (MoCo, eq. 1) and negatives of its own.

    ``query`` and ``key`` are (N, D), ``queue`` is (K, D), all L2-normalised; only ``query`` gets a gradient.
    ``extra`` is (N, E), each query's similarities to its own negatives, -inf where it has none.
    Lies between ln(1 + K exp(-2/T)) and ln(1 + K exp(2/T)), and near ln(1 + K) at the start.
    """
    positive = (query * key).sum(dim=1, keepdim=True)
    columns = [positive, query @ queue.t(), *([] if extra is None else [extra])]
    logits = torch.cat(columns, dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


class MoCoV2(Method):
    """MoCo-v2 with an MLP head.

    BatchNorm statistics would let a query recognise its own key's batch, so queries and keys are normalised in
    different groups: there are ``workers x split_bn`` groups, queries fill them in batch order, keys go to them in turn
    (batches are shuffled, so a fixed assignment is a random one). On several workers this is shuffle-BN, on one it is
    split-BN; two workers with one group each compute the same as one worker with two groups.

    BG_Swaps' negatives (arXiv 2103.12719) are distributed over the keys' groups and go through the key network with
    them: in groups of their own, their statistics would tell them from keys. Each is a negative of one query and is
    never enqueued. They show the first view's background, so that of a symmetric loss only the half with the first view
    as query has them.
    """

    queue: Tensor
    cursor: Tensor

    def __init__(self, config: MoCoV2Config, encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = mlp(encoder.feature_dim, config.hidden_dim, config.embedding_dim)
        self.key_network = copy.deepcopy(self.query_network).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(config.queue_size, config.embedding_dim), dim=1))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))
        self._new_keys: list[Tensor] = []

    @property
    def query_network(self) -> nn.Sequential:
        """The trained network: encoder and projector."""
        return nn.Sequential(self.encoder, self.projector)

    def forward(self, views: Views) -> Step:
        first, second = views.images[:2]
        loss, queries = self._contrast(first, second, views.swaps, views.swapped)
        if self.config.symmetric:
            loss = loss + self._contrast(second, first)[0]
        return Step(loss, {"embedding_std": embedding_std(queries)})

    def _contrast(
        self, query_images: Tensor, key_images: Tensor, swaps: Tensor | None = None, swapped: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        groups = to_unit(query_images).chunk(self.config.split_bn)
        queries = F.normalize(torch.cat([self.query_network(group) for group in groups]).float(), dim=1)
        keys, swap_keys = self._keys(key_images, swaps)
        self._new_keys.append(keys)
        own_keys = keys.chunk(world_size())[rank()]
        with torch.autocast(queries.device.type, enabled=False):
            extra = None if swapped is None else own_similarities(queries, swap_keys, swapped)
            return info_nce(queries, own_keys, self.queue, self.config.temperature, extra), queries

    @torch.no_grad()
    def _keys(self, images: Tensor, swaps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys (N, D) of the whole batch over all workers, in its order, and those of this worker's swaps (S, D)."""
        all_images = gather(images)
        size, counts = len(all_images), [0] * world_size()
        if swaps is not None:
            counts = gather_on_host(len(swaps))
        if swaps is not None and any(counts):
            all_images = torch.cat([all_images, gather(swaps, counts)])
        total, split = len(all_images), self.config.split_bn
        step = world_size() * split
        inputs = [to_unit(all_images[group::step]) for group in range(rank() * split, (rank() + 1) * split)]
        keys = F.normalize(torch.cat([self.key_network(group) for group in inputs]).float(), dim=1)
        lengths = [len(range(group, total, step)) for group in range(step)]
        by_worker = [sum(lengths[worker * split : (worker + 1) * split]) for worker in range(world_size())]
        keys = gather(keys, by_worker)[_positions(total, step, keys.device)]
        return keys[:size], keys[size:].split(counts)[rank()]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Update the key network (the next keys see this step's weights, as in MoCo's own code), then enqueue."""
        ema_update(self.key_network, self.query_network, self.config.momentum)
        for keys in self._new_keys:
            # The cursor stays on the device: to read it would make the host wait for this step.
            rows = (self.cursor + torch.arange(len(keys), device=keys.device)) % len(self.queue)
            self.queue.index_copy_(0, rows, keys)
            self.cursor.add_(len(keys)).remainder_(len(self.queue))
        self._new_keys.clear()


def _positions(total: int, step: int, device: torch.device) -> Tensor:
    """The order of ``total`` rows in which every ``step``-th lie behind one another, from 0, 1, ... on."""
    rows = torch.arange(total, device=device)
    group = rows % step
    return group * (total // step) + group.clamp(max=total % step) + rows // step
