"""The command line's errors name in one line the value given, the values allowed, and the cure."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
METHODS = "moco_v2, byol, swav, simclr, vicreg, dino, supervised"
DISTRIBUTION = "a searched key needs a distribution, such as {uniform: [0, 0.5]}"

COMMANDS = [
    ("", "the following arguments are required: COMMAND; see `bgsweep --help`"),
    (
        "resume NAME",
        "'resume': no such command; `bgsweep sweep --resume NAME` resumes a sweep; known: pretrain, sweep",
    ),
    ("train mine.yaml", "'train': no such command; `bgsweep pretrain FILE` trains one experiment"),
    ("list", "'list': no such command; `bgsweep status` lists the sweeps of a store"),
    ("kill NAME", "'kill': no such command; `bgsweep stop NAME` stops a sweep"),
    ("swep mine.yaml", "'swep': no such command; did you mean `sweep`?; known: pretrain"),
    (
        "masks mak x",
        "'mak': no such command; did you mean `make`?; known: make, import, train, score, show, review, drop; see",
    ),
    ("pretrain", "the following arguments are required: file; see `bgsweep pretrain --help`"),
    ("pretrain tiny.yml", "tiny.yml: No such file or directory; did you mean tiny.yaml?"),
    ("pretrain nothing.txt", "nothing.txt: No such file or directory; name a YAML file"),
    ("pretrain .", ".: a folder; name a YAML file in it, such as tiny.yaml"),
    ("pretrain tiny.yaml background.remove 0.3", "'background.remove': an override is written key=value"),
    (
        "pretrain tiny.yaml --background.remove=0.3",
        "an override has no dashes: background.remove=0.3; see `bgsweep pretrain",
    ),
    ("pretrain tiny.yaml --frsh", "unrecognized arguments: --frsh; did you mean --fresh?; see `bgsweep pretrain"),
    ("status one --nmae=x", "unrecognized arguments: --nmae=x; this command takes no key=value; see `bgsweep status"),
    (
        "status one two",
        "unrecognized arguments: two; options: --json, --watch, --store, --address; see `bgsweep status",
    ),
    ("sweep", "sweep: no file is given; write `bgsweep sweep FILE` or `bgsweep sweep --resume NAME`"),
    ("sweep tiny.yaml --resume x", "sweep: both tiny.yaml and --resume x are given; leave one out"),
    ("sweep --resume x", "bgsweep_runs: no sweep x; it has none; name the sweep's store by --store"),
    ("plan tiny.yaml --gpus 0", "argument --gpus: '0' is not a whole number from 1 on"),
    ("plan tiny.yaml --gpus 1 --hourly-price free", "argument --hourly-price: 'free' is not a number above 0"),
    ("preview tiny.yaml --images 0", "argument --images: '0' is not a whole number from 1 on"),
    ("models nobody", "nobody: no such registered model; there are none"),
    ("promote nobody 1", "nobody: no such registered model; there are none"),
    ("evaluate x.pt", "evaluate: nothing to measure is given; name a --suite (such as quick), or the YAML file"),
    ("evaluate empty tiny.yaml", "empty/state.pt: no such checkpoint; name its file, or the folder that holds it"),
    ("evaluate x.pt --suite knm", "--suite: no evaluator 'knm'; "),
    ("compare one", "compare: one model is named; name two or more"),
    (
        "submit tiny.yaml 'space.optimizer.lr={uniform: [0.1, 1]}' --address head:8265",
        "--address head:8265: name the clus",
    ),
    ("masks make nothing --out masks", "nothing: no such folder, or no images in it"),
    ("masks show nothing masks --second none", "nothing: no such folder, or no images in it"),
    ("masks show nothing masks --second rdb", "--second rdb: no masks there, and no method; name a folder of masks or"),
    ("masks review nothing masks --second none", "nothing: no such folder, or no images in it"),
    ("masks drop masks review.json", "review.json: No such file or directory; name the JSON that the page of `bgsweep"),
]

OVERRIDES = [
    ("space.optimizer.lr=0.1", f"space.optimizer.lr: {DISTRIBUTION}"),
    ("space.optimizer.lr=0.1", "a fixed value is written without `space.` (given: 0.1)"),
    (
        "space.optimizer.lr={uniform: 0.1}",
        "space.optimizer.lr.uniform: a list in brackets is needed, such as [0.1, 0.5]",
    ),
    (
        "search.metric=linear_top1",
        "search.metric: linear_top1 is not measured during training; "
        "did you mean `knn/top1`? known: knn/top1, knn/bg_gap, knn/mixed_same, knn/mixed_rand, rankme/rank, ",
    ),
    (
        "search={metric: [knn_top1, bg_gap], scheduler: median, trials: 2}",
        "search.scheduler: median compares trials by one metric and metric names 2; set scheduler: asha or none",
    ),
    ("evaluate.metrics=[rankm]", "evaluate.metrics.0: 'rankm' is not known; did you mean `rankme`? known: knn, bg_gap"),
    ("method.name=mocov2", f"experiment.method: 'mocov2' is not known; did you mean `moco_v2`? known: {METHODS}"),
    ("workers.count=7", "training.batch_size 320 is not a multiple of workers.count 7; 315 is"),
    ("training.accumulate=3", "training.accumulate 3 does not divide a worker's batch of 320; 2 does"),
    ("method.queue_size=700", "method.queue_size 700 is not a multiple of training.batch_size 320; 640 is"),
    (
        "space.optimizer.lr={}",
        "give exactly one of uniform, loguniform, quniform, choice, grid, such as {uniform: [0, 0.5]}",
    ),
    ("space.optimizer.lr={uniform: [2, 1]}", "the lower bound 2.0 is not below the upper bound 1.0; exchange them"),
    ("method.name=bert", f"experiment.method: 'bert' is not known; known: {METHODS}"),
    ("optimizer.name=adam", "experiment.optimizer.name: Input should be 'sgd', 'lars' or 'adamw' (given: 'adam')"),
    ("training.epochs=many", "experiment.training.epochs: a whole number is needed, such as 200 (given: 'many')"),
    ("training.epochs=2.5", "experiment.training.epochs: a whole number is needed, such as 200 (given: 2.5)"),
    ("training.epochs=0", "experiment.training.epochs: Input should be greater than or equal to 1 (given: 0)"),
    ("training.epochs=null", "experiment.training.epochs: a whole number is needed, such as 200 (nothing is given)"),
    ("background.remove=lots", "experiment.background.remove: a number is needed, such as 0.0 (given: 'lots')"),
    (
        "background.remove=[0.1, 0.2, 0.3, 0.4]",
        "experiment.background.remove: a list of 3 values is needed (given: [0.1,",
    ),
    (
        "background.remove=[0.1, 2]",
        "experiment.background.remove.1: Input should be less than or equal to 1 (given: 2)",
    ),
    ("background=0.3", "experiment.background: a section with keys is needed, one or more of: remove, random, swap"),
    ("background.remvoe=1", "experiment.background.remvoe: unknown key; did you mean `remove`? known: remove, random"),
    ("views.blur=[0.1, 0.2, 2]", "experiment.views.blur.2: Input should be less than or equal to 1 (given: 2)"),
    ("views.blur=[0.1, 2]", "experiment.views.blur.1: Input should be less than or equal to 1 (given: 2)"),
    ("views.blur=[0.1, 0.2, 0.3, 0.4]", "experiment.views.blur: a list of 3 values is needed (given: [0.1,"),
    ("optimizer.clip_norm=0", "experiment.optimizer.clip_norm: Input should be greater than 0 (given: 0)"),
    ("views.scale=0.2", "experiment.views.scale: a list in brackets is needed, such as [0.2, 1.0] (given: 0.2)"),
    ("views.scale=[0.1]", "experiment.views.scale: a list in brackets is needed, such as [0.2, 1.0] (given: [0.1])"),
    ("views.scale=[1, 0.2]", "experiment.views.scale: the lower bound 1.0 is above the upper bound 0.2"),
    (
        "views.jitter=[1, 2, 3, 4, 5]",
        "a list of 4 values is needed, such as [0.4, 0.4, 0.4, 0.1] (given: [1, 2, 3, 4, 5])",
    ),
    ("data.cache=maybe", "experiment.data.cache: true or false is needed (given: 'maybe')"),
    ("data.images=3", "experiment.data.images: a text is needed, such as sample (given: 3)"),
    ("data.loader=cluster", "experiment.data.loader: cluster needs loader_workers"),
    ("evaluate=3", "evaluate: a section with keys is needed, one or more of: every, variant, bg_gap, metrics, knn"),
    ("evaluate.linear.lrs=[]", "evaluate.linear.lrs: a list in brackets is needed, such as [0.01, 0.03, 0.1, 0.3]"),
]


def _told(folder: Path, words: list[str]) -> str:
    (folder / "tiny.yaml").write_bytes(TINY.read_bytes())
    (folder / "empty").mkdir()
    done = bgsweep(*words, folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ")


@pytest.mark.parametrize(("line", "told"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_refused_command_says_what_is_meant(line: str, told: str, tmp_path: Path) -> None:
    assert told in _told(tmp_path, shlex.split(line))


@pytest.mark.parametrize(("override", "told"), OVERRIDES, ids=[override for override, _ in OVERRIDES])
def test_a_refused_value_says_what_is_allowed(override: str, told: str, tmp_path: Path) -> None:
    said = _told(tmp_path, ["sweep", "tiny.yaml", override])
    assert said.startswith("tiny.yaml: ") and told in said


PACKAGE = Path(__file__).parents[2] / "bgsweep"
# Values that end in a fix of their own, or pass on another refusal; `cure` in a name says so too.
WITH_FIX = re.compile(
    r"[cC]ure|CURE|NO_CREDENTIALS|reason|\b_?(unrecognized|described|reason|unwritable|why_unreadable)\(|error\)?\}|error\.cause"
    r"|\bwrong\b|\{last\}"
)
FIX = re.compile(r"; |: (name|give|put) |: pip install |e\.g\. |such as ")


def refusals() -> Iterator[tuple[str, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", ast.unparse(node.args[0])


def test_every_refusal_in_the_code_says_how_to_fix_it() -> None:
    found = list(refusals())
    assert len(found) > 200
    assert [(place, text) for place, text in found if not FIX.search(text) and not WITH_FIX.search(text)] == []
