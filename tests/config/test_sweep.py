"""Reading a file: what it says is what one gets, and what is wrong with it is one clear line."""

from pathlib import Path

import pytest
import yaml

from bgsweep.config import Experiment, SwAVConfig, SweepConfig, load, resolve
from bgsweep.errors import UserError

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
SPACES = [path for path in SPACES if path.name != "shortcut_study.yaml"]  # a plan of several sweeps


def write(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("given", "name", "lr", "decay_all"),
    [
        ([], "lars", 0.2, False),
        (["optimizer.lr=0.4"], "lars", 0.4, False),
        (["optimizer.name=lars", "optimizer.decay_all=true"], "lars", 0.2, True),
        (["optimizer.name=sgd"], "sgd", 0.03, True),
        (["method.name=simclr"], "sgd", 0.03, True),
    ],
)
def test_a_methods_defaults_of_the_optimizer_hold_where_no_other_is_named(
    given: list[str], name: str, lr: float, decay_all: bool
) -> None:
    found = resolve({}, ["method.name=vicreg", *given]).experiment
    assert (found.optimizer.name, found.optimizer.lr, found.optimizer.decay_all) == (name, lr, decay_all)
    assert Experiment.model_validate(found.model_dump(mode="json")) == found
    assert found.with_values({"background.remove": 0.5}).optimizer == found.optimizer


@pytest.mark.parametrize("methods", [("moco_v2", "vicreg"), ("vicreg", "moco_v2"), ("simclr", "swav")])
@pytest.mark.parametrize(
    "given",
    [
        [],
        ["optimizer.lr=0.4"],
        ["optimizer.name=adamw", "optimizer.betas=[0.9, 0.95]"],
        ["optimizer.weight_decay={from: 0.1, to: 0.2}", "optimizer.warmup_epochs=10"],
        ["optimizer.clip_norm=1.0", "optimizer.momentum=0.8"],
    ],
)
def test_a_trial_of_another_method_has_the_optimizer_that_a_file_of_it_has(
    given: list[str], methods: tuple[str, str]
) -> None:
    before, after = (resolve({}, [f"method.name={name}", *given]).experiment for name in methods)
    for known in (before, Experiment.model_validate(before.model_dump(mode="json"))):
        assert known.with_values({"method.name": methods[1]}) == after


def test_values_of_a_trial_count_beside_its_methods_optimizer() -> None:
    rate = Experiment().with_values({"method.name": "vicreg", "optimizer.lr": 0.3}).optimizer
    assert (rate.name, rate.lr, rate.decay_all) == ("lars", 0.3, False)
    named = Experiment().with_values({"method.name": "vicreg", "optimizer.name": "sgd"})
    assert named == resolve({}, ["method.name=vicreg", "optimizer.name=sgd"]).experiment
    assert named.with_values({"method.name": "byol"}).optimizer.name == "sgd"
    decay = Experiment().with_values({"method.name": "vicreg", "optimizer.weight_decay.from": 0.1})
    assert (decay.value("optimizer.weight_decay.from"), decay.value("optimizer.weight_decay.to")) == (0.1, 1e-6)


@pytest.mark.parametrize("name", ["vicregg", 3, {"name": "vicreg"}])
def test_an_unknown_method_of_a_trial_is_refused_as_in_a_file(name: object) -> None:
    assert SweepConfig().refusal({"method.name": name}).startswith("method")
    assert "optimizer.name" in SweepConfig().refusal({"method.name": "vicreg", "optimizer.name": "adam"})


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_file_that_we_ship_is_valid(path: Path) -> None:
    masks = ["data.masks=masks"] if path.stem.endswith("_imagenet") else []  # without them, a baseline for `pretrain`
    assert load(path, masks).name == path.stem


def test_a_command_that_uses_the_experiment_alone_is_not_stopped_by_the_search(tmp_path: Path) -> None:
    path = write(tmp_path, "experiment: {data: {images: here}}\nspace: {background.remove: {uniform: [0, 1]}}\n")
    with pytest.raises(UserError, match=r"set data\.masks"):
        load(path)
    assert load(path, ["space={}"]).space.parameters == {}
    file = load(path, ["search.trails=3", "search.wait_minutes=2"], searched=False)
    assert (file.space.parameters, file.search.wait_minutes) == ({}, 2)


def test_overrides_reach_the_experiment_and_the_other_sections(tmp_path: Path) -> None:
    path = write(tmp_path, "experiment: {seed: 3}\n")
    file = load(path, ["background.remove=0.3", "search.trials=4", "register.name=mine", "optimizer.lr=1e-2"])
    assert file.name == "file"
    assert file.experiment.seed == 3
    assert file.experiment.background.remove == 0.3
    assert file.experiment.optimizer.lr == 0.01
    assert (file.search.trials, file.register_as.name) == (4, "mine")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("background.remvoe=0.5", "experiment.background.remvoe: unknown key; did you mean `remove`?"),
        ("method.temprature=0.1", "experiment.method.temprature: unknown key; did you mean `temperature`?"),
        ("search.trails=3", "search.trails: unknown key; did you mean `trials`?"),
        ("register.nmae=x", "register.nmae: unknown key; did you mean `name`?"),
        ("sead=1", "experiment.sead: unknown key; did you mean `seed`?"),
        ("background.remove=1.5", "experiment.background.remove: Input should be less than or equal to 1 (given: 1.5)"),
        (
            "background.remove=-1",
            "experiment.background.remove: Input should be greater than or equal to 0 (given: -1)",
        ),
        ("training.epochs=many", "experiment.training.epochs: a whole number is needed, such as 200 (given: 'many')"),
        ("views.scale=[1, 0.2]", "scale: the lower bound 1.0 is above the upper bound 0.2"),
        ("method.name=mocov2", "experiment.method: 'mocov2' is not known; did you mean `moco_v2`? known: moco_v2"),
        ("optimizer.lr=nan", "experiment.optimizer.lr"),
        ("training.sync_bn=true", "training.sync_bn: with moco_v2 a query could recognise its key"),
        (
            "space.background.remove={uniform: [0, 1.5]}",
            "space.background.remove: Input should be less",
        ),
        (
            "space.background.reove={uniform: [0, 1]}",
            "space.background.reove: unknown key; did you mean",
        ),
        ("space.background={uniform: [0, 1]}", "space.background: a section"),
        ("space.optimizer.lr={unifrom: [0, 1]}", "did you mean `uniform`"),
        ("space.optimizer.lr={uniform: [1, 0.1]}", "the lower bound 1.0 is not below"),
        ("space.optimizer.lr={uniform: [0.1, 1], choice: [1]}", "exactly one of"),
        ("space.points=[{optimizer.lr: 1}]", "space.points[0].optimizer.lr: not one of the searched keys"),
        ("data.loader=cluster", "experiment.data.loader: cluster needs loader_workers"),
        (
            "data.masks=mine",
            "experiment.data.masks: data.images is `sample`, whose images come with masks of their own; set data",
        ),
        ("noequals", "an override is written key=value"),
        ("seed.x=1", "seed"),
    ],
)
def test_a_wrong_value_is_one_line_with_file_key_and_cure(tmp_path: Path, override: str, told: str) -> None:
    path = write(tmp_path, "experiment: {seed: 0}\n")
    with pytest.raises(UserError) as caught:
        load(path, [override])
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert "constrained" not in message, "a tag of pydantic's own shows through"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("experiment: [", "not valid YAML"),
        ("- 1\n- 2\n", "a list; begin with `experiment:`"),
        ("experiment: 3\n", "experiment"),
        ("experiment: {name: !!python/object/apply:os.system ['true']}\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        load(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.yaml: No such file"):
        load(tmp_path / "nothing.yaml")


def test_background_augmentation_without_masks_is_refused() -> None:
    with pytest.raises(UserError, match=r"set data\.masks"):
        resolve({}, ["data.images=/somewhere", "background.remove=0.2"])


def test_a_fixed_point_must_lie_in_the_space() -> None:
    space = {"optimizer.lr": {"loguniform": [0.1, 1.0]}, "points": [{"optimizer.lr": 2.0}]}
    with pytest.raises(UserError, match=r"space\.points\[0\]\.optimizer\.lr: 2\.0 lies outside"):
        resolve({"space": space})


def test_the_digest_is_of_the_whole_experiment() -> None:
    plain = Experiment()
    assert plain.digest == Experiment.model_validate(plain.model_dump()).digest
    others = [
        plain.with_values({key: value})
        for key, value in (
            ("background.remove", 0.1),
            ("background.fill", "black"),
            ("seed", 1),
            ("data.resize", 64),
            ("views.gray", 0.1),
        )
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == len(others) + 1


def test_dumped_and_read_again_a_file_is_the_same() -> None:
    file = load(SPACES[0], ["data.masks=masks"])
    assert resolve(file.model_dump(mode="json", by_alias=True)) == file


def test_switching_the_background_off_leaves_everything_else() -> None:
    experiment = Experiment().with_values({"background.remove": 0.3, "background.random": 0.2})
    assert experiment.background.active
    plain = experiment.with_values(experiment.without_background())
    assert not plain.background.active
    assert plain == Experiment()


METHODS = {
    "method.name": {"choice": ["moco_v2", "swav"]},
    "method.queue_size": {"choice": [128], "when": {"method.name": "moco_v2"}},
    "method.prototypes": {"choice": [16, 32], "when": {"method.name": "swav"}},
    "optimizer.lr": [
        {"loguniform": [0.01, 0.1], "when": {"method.name": "moco_v2"}},
        {"loguniform": [1.0, 5.0], "when": {"method.name": "swav"}},
    ],
}


def with_methods(**space: object) -> SweepConfig:
    experiment = {"training": {"batch_size": 64}, "method": {"queue_size": 128, "hidden_dim": 16}}
    return resolve({"experiment": experiment, "space": {**METHODS, **space}})


def test_a_point_has_the_keys_that_apply_beside_its_values() -> None:
    file = with_methods()
    assert file.complete({}) == {"method.name": "moco_v2", "method.queue_size": 128, "optimizer.lr": 0.03}
    point = {"method.name": "swav", "method.prototypes": 16, "optimizer.lr": 2.0}
    assert file.complete(point) == point
    swav = file.experiment.with_values(point)
    assert isinstance(swav.method, SwAVConfig)
    assert (swav.method.prototypes, swav.method.hidden_dim) == (16, 2048), "another method starts from its defaults"
    assert resolve(file.model_dump(mode="json", by_alias=True)) == file


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (
            {"method.prototypes": {"choice": [16], "when": {"method.nme": "swav"}}},
            "space: method.prototypes.when.method.nme: not one of the searched keys; did you mean `method.name`?",
        ),
        (
            {"method.prototypes": {"choice": [16], "when": {"method.name": "swaw"}}},
            "method.prototypes.when.method.name: swaw is none of its values; did you mean `swav`?",
        ),
        (
            {"method.prototypes": {"choice": [16]}},
            "space.method.prototypes: moco_v2 has no such key; add `when: {method.name: swav}`",
        ),
        (
            {"method.prototypes": {"choice": [1], "when": {"method.name": "swav"}}},
            "space.method.prototypes: Input should be greater than or equal to 2",
        ),
        (
            {"background.swap": {"uniform": [0.0, 0.5]}},
            "space.background.swap: BG_Swaps adds negatives, and swav has none",
        ),
        (
            {"seed": {"choice": [1, 2], "when": {"views.gray": 0.2}}, "views.gray": {"uniform": [0.1, 0.3]}},
            "seed.when.views.gray: a range has too many values to depend on",
        ),
        (
            {
                "seed": {"choice": [1, 2], "when": {"views.size": 24}},
                "views.size": {"choice": [24, 32], "when": {"seed": 1}},
            },
            "depend on one another in a circle",
        ),
        ({"seed": [{"choice": [1]}, {"choice": [2]}]}, "seed: two distributions apply at once"),
        (
            {"points": [{"method.name": "swav", "method.prototypes": 16}]},
            "space.points[0]: optimizer.lr is searched beside these values, and the experiment has none for it",
        ),
        (
            {"points": [{"method.prototypes": 16}]},
            "space.points[0]: method.prototypes is not searched beside the point's other values",
        ),
    ],
)
def test_a_wrong_condition_is_one_line_with_its_cure(space: dict[str, object], told: str) -> None:
    with pytest.raises(UserError) as caught:
        with_methods(**space)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["search.metric=knn_top"],
            "search.metric: knn_top is not measured during training; did you mean `knn/top1`? known: knn/top1, ",
        ),
        (["search.metric=[knn_top1, bg_gap]", "search.mode=max"], "mode: 2 metrics need 2 modes, such as [max, min];"),
        (["search={metric: [knn_top1, bg_gap], scheduler: median}"], "set scheduler: asha or none"),
        (["search.metric=lidr"], "lidr is not measured during training; did you mean `lidar/rank`?"),
        (["search.algorithm=bohb"], "search.algorithm: bohb needs hpbandster"),
        (
            ["search.seeds=2", "space.seed={choice: [0, 1]}"],
            "space.seed: search.seeds gives every trial the same seeds",
        ),
        (["search.scheduler=pbt", "search.perturb_epochs=200"], "search.perturb_epochs: 200 is not below"),
        (
            ["search.scheduler=pbt", "evaluate.every=3"],
            "search.perturb_epochs: 10 is no multiple of evaluate.every 3",
        ),
        (["search.scheduler=pbt", "workers.count=2"], "set workers.count: 1"),
        (["search.scheduler=pbt", "space.encoder.width={choice: [8, 16]}"], "space.encoder.width: pbt changes values"),
        (
            ["search.scheduler=pbt", "space.optimizer.decay_all={choice: [true, false]}"],
            "space.optimizer.decay_all: pbt changes values during training",
        ),
        (
            ["search.scheduler=pbt", "encoder.name=vit_s_16", "space.views.size={choice: [192, 224]}"],
            "space.views.size: pbt passes weights on between trials, and position embeddings such as those of vit_s_16",
        ),
    ],
)
def test_searches_that_cannot_be_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve({}, overrides)
    assert told in str(caught.value)


def test_an_upper_bound_that_no_step_reaches_is_not_tried() -> None:
    file = resolve({}, ["space.training.batch_size={quniform: [64, 300, 64]}", "method.queue_size=768"])
    (steps,) = file.space.parameters["training.batch_size"]
    assert steps.extremes() == (64, 256)
    file.check_draws()


def test_a_population_may_differ_in_the_size_of_a_resnets_views() -> None:
    resolve({}, ["search.scheduler=pbt", "space.views.size={choice: [192, 224]}"])


def test_the_examples_of_the_page_on_searching_are_valid() -> None:
    page = (SPACES[0].parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    assert len(blocks) == 5
    for block in blocks:
        resolve({"experiment": {"method": {"name": "moco_v2", "queue_size": 3840}}, **yaml.safe_load(block)})
