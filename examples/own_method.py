# %% [markdown]
# # A method of your own
#
# Alignment and uniformity (Wang and Isola 2020, arXiv 2005.10242) as a plug-in: its settings and its loss, checked by
# `bgsweep.testing` and trained for a few epochs. From a shell, in seconds:
#
#     python examples/own_method.py
#
# A run finds a method by its name, `module:Class`, so that the class must be in a file, here this one. As a notebook,
# run it in the folder of this file. In a package of your own the two classes belong into two modules, since the
# process that drives a sweep reads configurations without importing torch.

# %%
import torch
import torch.nn.functional as F
from torch import nn

import bgsweep as bg
from bgsweep import testing
from bgsweep.config.methods import MethodSection
from bgsweep.methods.base import Method, Step, Views
from bgsweep.models import ImageEncoder, to_unit

# %% [markdown]
# ## The settings
#
# The section that `method:` of a configuration becomes. Its keys are typed, and unknown ones refused.


# %%
class AlignUniformConfig(MethodSection):
    """Keys of the method."""

    implementation = "own_method:AlignUniform"
    mutable = ("uniformity",)  # population-based training may change it
    embedding_dim: int = 32
    uniformity: float = 1.0


# %% [markdown]
# ## The method
#
# A batch has the two views of each image, as uint8; `to_unit` gives floats in [0, 1], and the encoder normalises them.
# Positives shall be near one another on the unit sphere, and all embeddings spread over it.


# %%
class AlignUniform(Method):
    """An encoder under a linear projection to the unit sphere."""

    def __init__(self, config: AlignUniformConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder, self.uniformity = encoder, config.uniformity
        self.projection = nn.Linear(encoder.feature_dim, config.embedding_dim)

    def forward(self, views: Views) -> Step:
        projected = (self.projection(self.encoder(to_unit(images))).float() for images in views.images[:2])
        first, second = (F.normalize(each, dim=1) for each in projected)
        align = (first - second).square().sum(dim=1).mean()
        uniform = sum(torch.pdist(each).square().mul(-2).exp().mean().log() for each in (first, second)) / 2
        metrics = {"align": align.detach(), "uniform": uniform.detach()}
        return Step(align + self.uniformity * uniform, metrics)


# %% [markdown]
# ## Does it do what it should?
#
# Gradients reach all parameters, and a run that is stopped and resumed ends as one that was not, bit by bit. Runs
# import this file to find the class, so that what follows must not run then.

# %%
method = {"name": "own_method:AlignUniformConfig", "embedding_dim": 16}
if __name__ == "__main__":
    testing.check_method(method)
    print("checked")

# %% [markdown]
# ## A run
#
# Background augmentation, checkpoints, resuming and MLflow are the same as for any method.

# %%
experiment = {
    "data": {"images": "sample", "resize": 40, "cache": True, "loader_workers": 0},
    "views": {"size": 24, "blur": 0.0},
    "background": {"remove": 0.2, "random": 0.2},
    "method": method,
    "encoder": {"name": "resnet10", "width": 8, "stem": "small"},
    "training": {"epochs": 2, "batch_size": 64},
    "workers": {"device": "cpu"},
}
if __name__ == "__main__":
    done = bg.pretrain({"experiment": experiment})
    print({key: round(done["metrics"][key], 3) for key in ("align", "uniform", "validation/knn/top1")})
