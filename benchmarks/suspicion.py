"""Suspicion of masks against their true IoU, on images whose masks are known.

    python benchmarks/suspicion.py CLOTHING10 IMAGENETTE --work suspicion --record

Two sets that had no part in the choice of the score's weights:

- garments: cutouts of clothing10's test images, pasted on Imagenette's validation images (300 composites);
- scenes: the same test images as they are. Their masks are by U2-Net-P, which therefore is not the second method here.

The weights were chosen on composites of photographic stamps (scripts/composite_stamps.py OUT; `--stamps OUT` adds them),
where neither cutouts nor backgrounds are those of the garments. On each set the masks are those of bgsweep's own methods,
and the true masks made worse as by data.mask_noise. Masks of one method are compared with one another, as in a folder
that somebody has made. What was made lies in --work; interrupted, the command goes on.
"""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import markdown, parser_of, report

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
