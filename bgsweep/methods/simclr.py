"""SimCLR (Chen et al. 2020): contrast two views of an image with all other views of the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import SimCLRConfig
from bgsweep.methods.base import Method, Step, Views, embedding_std, own_similarities
from bgsweep.methods.distributed import gather_with_gradient, rank
from bgsweep.models import ImageEncoder, mlp, to_unit


def nt_xent(embeddings: Tensor, temperature: float, extra: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of picking each view's other view among all views but itself (SimCLR, eq. 1).

    ``embeddings`` are (2, N, D), L2-normalised: two views of this worker's N images. Those of all workers are
    negatives, and get gradients as such. ``extra`` is (2N, E), each view's similarities to negatives of its own, -inf
    where it has none.
    """
    size = embeddings.shape[1]
    everyone = gather_with_gradient(embeddings.transpose(0, 1))
    total = len(everyone)
    candidates = everyone.transpose(0, 1).flatten(0, 1)  # the first views of all images, then the second ones
    own = rank() * size + torch.arange(size, device=embeddings.device)
    itself, positive = torch.cat([own, own + total]), torch.cat([own + total, own])
    logits = (embeddings.flatten(0, 1) @ candidates.t()).scatter(1, itself[:, None], -torch.inf)
    logits = torch.cat([logits, *([] if extra is None else [extra])], dim=1)
    return F.cross_entropy(logits / temperature, positive)


class SimCLR(Method):
    """SimCLR with the published head, whose last layer is normalised too, without a bias.

    Both views go through the encoder in one batch. BG_Swaps' negatives (arXiv 2103.12719) are in it as well, since
    statistics of their own would tell them from the views. Unlike MoCo-v2's they get gradients, as all negatives of
    SimCLR do. Each is a negative of one first view, whose background it has. On several workers `training.sync_bn`
    gives the published BatchNorm; without it a view could recognise its positive by the statistics of its batch.
    """

    def __init__(self, config: SimCLRConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        head = mlp(encoder.feature_dim, config.hidden_dim, config.embedding_dim, batch_norm=True, out_bias=False)
        self.projector = nn.Sequential(*head, nn.BatchNorm1d(config.embedding_dim))
        self.projector[-1].bias.requires_grad_(False)  # stays at 0

    def forward(self, views: Views) -> Step:
        first, second = views.images[:2]
        images = torch.cat([first, second, *([] if views.swaps is None else [views.swaps])])
        embeddings = F.normalize(self.projector(self.encoder(to_unit(images))).float(), dim=1)
        pairs, swaps = embeddings[: 2 * len(first)], embeddings[2 * len(first) :]
        with torch.autocast(embeddings.device.type, enabled=False):
            extra = None if views.swapped is None else own_similarities(pairs, swaps, views.swapped)
            loss = nt_xent(pairs.view(2, len(first), -1), self.config.temperature, extra)
        return Step(loss, {"embedding_std": embedding_std(pairs[: len(first)])})
