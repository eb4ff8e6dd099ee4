import json
from pathlib import Path
from typing import Any

import pytest

from bgsweep.errors import UserError
from bgsweep.masks.marks import FORMAT, read_review

ITEM = {"mask": "a.png", "sha256": "0", "sampled": True, "listed": False, "mark": "bad"}
GOOD = {"format": FORMAT, "masks": "masks", "pairs": 3, "items": [ITEM]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory; name the JSON that the page"),
        ("{", "no JSON; name the JSON that the page"),
        ([], "not a review of masks; name"),
        ({**GOOD, "format": "other"}, "not a review of masks; name"),
        ({**GOOD, "items": [{**ITEM, "mark": "so-so"}]}, "a damaged review of masks .*so-so.*; name"),
        ({**GOOD, "items": [{"mask": "a.png"}]}, "a damaged review of masks .*; name"),
        ({**GOOD, "items": None}, "a damaged review of masks .*; name"),
    ],
)
def test_other_files_are_refused(content: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "review.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=rf"review\.json: {said}"):
        read_review(path)
