# %% [markdown]
# # Does a model of timm rely on backgrounds?
#
# Evaluates one on the bundled test images with their own and with other backgrounds; `bgsweep audit` does this and more
# for images of your own, as a page. From a shell:
#
#     python examples/audit_timm.py resnet18
#
# It needs timm (`pip install 'bgsweep[timm]'`), and downloads the model's published weights once. Without a network
# connection it takes random weights, and says so: the numbers then show a network that has learnt nothing.

# %%
import sys
from pathlib import Path

import timm
import torch

import bgsweep as bg

# %% [markdown]
# ## The model
#
# `timm:NAME` are published weights, `timm:NAME=FILE` those of a file.

# %%
name = sys.argv[1] if len(sys.argv) > 1 and "ipykernel" not in sys.modules else "resnet18"
model = f"timm:{name}"
try:
    bg.load(model)
except bg.UserError as error:
    if "cannot be downloaded" not in str(error):
        raise
    print(f"RANDOM weights, since there are no others here: {error}")
    torch.manual_seed(0)
    torch.save(timm.create_model(name).state_dict(), "random.pth")
    model = f"timm:{name}=random.pth"

# %% [markdown]
# ## The images
#
# `sample` are those that come with bgsweep, with their masks. For your own write folders instead: `{"images":
# "images", "masks": "masks"}`. `size` is the side in pixels that they are shown at.

# %%
suite = {"data": {"images": "sample"}, "size": 64}

# %% [markdown]
# ## The audit
#
# Features of the training images are compared with those of each variant of the test images. `mixed_same` has a
# background of the same class, `mixed_rand` of another: their difference, `bg_gap`, measures how much the model relies
# on backgrounds.

# %%
found = bg.evaluate(model, "backgrounds", data=suite)
for key, value in found["results"]["backgrounds"]["values"].items():
    print(f"{key:24} {value:6.1%}")
protocol = found["results"]["backgrounds"]["protocol"]
print(f"{protocol['test']}; compared with {protocol['train']}")
Path("random.pth").unlink(missing_ok=True)
