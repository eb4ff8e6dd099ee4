"""MoCo-v2 (He et al. 2020; Chen et al. 2020): contrast a query with its key against a queue of earlier keys."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import MoCoV2Config
from bgsweep.methods.collective import gather, rank, world_size
from bgsweep.methods.method import Method, Step, Views, ema_update, embedding_std
from bgsweep.models import ImageEncoder, mlp, to_unit


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of picking each query's key among the queue (MoCo, eq. 1).

    ``query`` and ``key`` are (N, D), ``queue`` is (K, D), all L2-normalised; only ``query`` gets a gradient.
    Lies between ln(1 + K exp(-2/T)) and ln(1 + K exp(2/T)), and near ln(1 + K) at the start.
    """
    positive = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, query @ queue.t()], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


class MoCoV2(Method):
    """MoCo-v2 with an MLP head.

    BatchNorm statistics would let a query recognise its own key's batch, so queries and keys are normalised in
    different groups: there are ``workers x split_bn`` groups, queries fill them in batch order, keys are dealt out
    one by one (batches come shuffled, so a fixed deal is a random one). On several workers this is shuffle-BN, on one
    it is split-BN; two workers with one group each compute what one worker with two groups does.
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
        return nn.Sequential(self.encoder, self.projector)

    def forward(self, views: Views) -> Step:
        first, second = views.images[:2]
        loss, queries = self._contrast(first, second)
        if self.config.symmetric:
            loss = loss + self._contrast(second, first)[0]
        return Step(loss, {"embedding_std": embedding_std(queries)})

    def _contrast(self, query_images: Tensor, key_images: Tensor) -> tuple[Tensor, Tensor]:
        groups = to_unit(query_images).chunk(self.config.split_bn)
        queries = F.normalize(torch.cat([self.query_network(group) for group in groups]).float(), dim=1)
        keys = self._keys(key_images)
        self._new_keys.append(keys)
        own = keys.chunk(world_size())[rank()]
        with torch.autocast(queries.device.type, enabled=False):
            return info_nce(queries, own, self.queue, self.config.temperature), queries

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        """Keys (N, D) of the whole batch over all workers, in its order."""
        everything = gather(images)
        dealt = torch.arange(len(everything)).view(-1, world_size() * self.config.split_bn).t().reshape(-1)
        mine = to_unit(everything[dealt.chunk(world_size())[rank()].to(images.device)])
        keys = torch.cat([self.key_network(group) for group in mine.chunk(self.config.split_bn)])
        return gather(F.normalize(keys.float(), dim=1))[dealt.argsort().to(images.device)]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the key network (the next keys see this step's weights, as in MoCo's own order), then enqueue."""
        ema_update(self.key_network, self.query_network, self.config.momentum)
        for keys in self._new_keys:
            start = int(self.cursor)
            self.queue[start : start + len(keys)] = keys
            self.cursor.fill_((start + len(keys)) % len(self.queue))
        self._new_keys.clear()
