# %% [markdown]
# # A sweep from Python
#
# Searches two probabilities on the bundled images, looks at the trials as a table, and loads the champion. It takes
# about a minute on two cores; nothing is learnt in so few epochs. From a shell:
#
#     python examples/sweep.py
#
# The store is the folder `bgsweep_runs`, unless `BGSWEEP_STORE` names another.

# %%
import time

import torch

import bgsweep as bg

# %% [markdown]
# ## The configuration
#
# The sections of a YAML file, typed: a wrong key or value raises `bgsweep.UserError` with one line. A file works as
# well: `bg.load_config("mine.yaml")`. Keys that are left out have their defaults.

# %%
config = bg.Sweep(
    name="from-python",
    experiment={
        "data": {"images": "sample", "resize": 40, "cache": True, "loader_workers": 0},
        "views": {"size": 24, "blur": 0.0},
        "method": {"name": "simclr", "hidden_dim": 64, "embedding_dim": 32},
        "encoder": {"name": "resnet10", "width": 8, "stem": "small"},
        "training": {"epochs": 3, "batch_size": 64},
        "workers": {"device": "cpu"},
    },
    space={"background.remove": {"uniform": [0.0, 0.5]}, "background.random": {"uniform": [0.0, 0.8]}},
    search={"trials": 3, "scheduler": "none"},
    evaluate={"variant": "mixed_rand"},
    register={"name": "from-python"},
)
print(config.experiment.background)

# %% [markdown]
# ## The search
#
# It starts Ray on this machine, or uses one that is there already. At the end it compares the best trial with the
# baseline (no background augmentation) and an untrained encoder on the test images, and registers its encoder.

# %%
name = f"from-python-{time.strftime('%Y%m%dT%H%M%S')}"
found = bg.sweep(config, name=name)
for who in ("best", "baseline", "untrained"):
    print(f"{who:10}", {key: round(value, 3) for key, value in found[who]["metrics"]["backgrounds"].items()})

# %% [markdown]
# ## The trials
#
# As a pandas DataFrame, one row each; `epochs=True` gives a row for each epoch.

# %%
trials = bg.runs(name)
print(
    trials[["trial", "status", "params.background.remove", "params.background.random", "metrics.validation/knn/top1"]]
)

# %% [markdown]
# ## The champion
#
# As a torch module with its preprocessing. An earlier champion of this name stays one unless the new encoder beats it
# by more than the noise, so that the version is named here.

# %%
model = found["model"]
encoder = bg.load(f"models:/{model['name']}/{model['version']}")
image = (torch.rand(60, 80, 3) * 255).byte().numpy()  # or a file, or a PIL image
features = encoder(encoder.preprocess(image)[None])
print(features.shape, "features of", model["name"], "version", model["version"], f"({model['alias']})")
