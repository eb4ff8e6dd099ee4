"""The files in cluster/ are held against the schemas of what reads them, and no misspelt key gets through."""

import copy
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bgsweep.cli.main import parse
from bgsweep.cli.train import Submit, Sweep
from bgsweep.config import load, review_search
from tests.cluster.validation import CLUSTER, problems, read

FILES = sorted(CLUSTER.rglob("*.yaml"))
SCRIPTS = [CLUSTER / "slurm.sbatch", CLUSTER / "mlflow" / "serve.sh"]
# Mappings whose keys are names that somebody chose, and are held against other things or none.
FREE = ("environment", "matchLabels", "labels", "selector", "file_mounts", "requests", "limits", "available_node_types")
COMPOSE_FREE = ("services", "volumes", "depends_on")
SBATCH = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "output", "signal"}


def named(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's check of a file for EC2 makes a client, which calls nobody."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")


def keys(document: Any, free: tuple[str, ...], at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all keys whose spelling matters."""
    if isinstance(document, dict):
        for key, value in document.items():
            if not (at and at[-1] in free):
                yield (*at, key)
            yield from keys(value, free, (*at, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from keys(value, free, (*at, index))


def misspelt(document: Any, path: tuple[Any, ...]) -> Any:
    """The document with one key's last two letters changed about, or one letter more."""
    changed = copy.deepcopy(document)
    place = changed
    for part in path[:-1]:
        place = place[part]
    key = path[-1]
    other = key[:-2] + key[-1] + key[-2] if len(key) > 2 and key[-1] != key[-2] else key + "x"
    place[other] = place.pop(key)
    return changed


@pytest.mark.parametrize("path", FILES, ids=named)
def test_file_is_valid(path: Path) -> None:
    for document in read(path):
        assert problems(path, document) == []


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_misspelt_key_gets_through(path: Path) -> None:
    free = (*FREE, *COMPOSE_FREE) if path.name == "compose.yaml" else FREE
    tried, passed = 0, []
    for document in read(path):
        for key in keys(document, free):
            tried += 1
            if not problems(path, misspelt(document, key)):
                passed.append(".".join(map(str, key)))
    assert tried > 8
    assert passed == []


@pytest.mark.parametrize("path", [*FILES, CLUSTER / "slurm.sbatch"], ids=named)
def test_header_says_what_to_fill_in_and_how_to_use_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any(line.startswith("# Fill in") for line in header)
    use = header[header.index("# Use:") + 1 :]
    assert len([line for line in use if re.match(r"#   \S", line) and "--values" not in line]) >= 3


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_script_is_sound(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--shell=bash", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def shown() -> Iterator[tuple[Path, list[str]]]:
    """The words of each `bgsweep` command that a file runs, or shows in its header."""
    for path in [*FILES, CLUSTER / "slurm.sbatch"]:
        text = path.read_text(encoding="utf-8").replace('"$@"', "mine.yaml search.trials=32")
        for line in re.findall(r"^(?:#   )?(bgsweep .*)", text, re.MULTILINE):
            yield path, shlex.split(line.partition(" &")[0], comments=True)
        for document in read(path) if path.name == "rayjob.yaml" else ():
            yield path, shlex.split(document["spec"]["entrypoint"])


def test_commands_of_the_files_are_searches_that_are_not_refused(tmp_path: Path) -> None:
    """The published recipes search background augmentations, for which these have to name masks."""
    root = CLUSTER.parent
    shutil.copyfile(root / "search_spaces" / "quickstart.yaml", tmp_path / "mine.yaml")
    places = {"mine.yaml": f"{tmp_path}/mine.yaml", "/home/bgsweep/search_spaces": f"{root}/search_spaces"}
    found = set()
    for path, words in shown():
        for name, place in places.items():
            words = [word.replace(name, place) for word in words]
        options = parse(words[1:])
        if isinstance(options.command, Sweep | Submit):
            review_search(load(options.file, options.overrides))
            found.add(path.name)
    assert found == {"aws.yaml", "gcp.yaml", "onprem.yaml", "raycluster.yaml", "rayjob.yaml", "slurm.sbatch"}


def test_misspelt_batch_option_is_noticed() -> None:
    options = re.findall(r"^#SBATCH --([a-z-]+)=", (CLUSTER / "slurm.sbatch").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(options) == 8 and set(options) <= SBATCH


def test_the_mlflow_server_is_given_what_its_script_asks_for() -> None:
    script = (CLUSTER / "mlflow" / "serve.sh").read_text(encoding="utf-8")
    wanted = set(re.findall(r'"\$\{([A-Z_]+):\?\}"', script))
    compose = yaml.safe_load((CLUSTER / "mlflow" / "compose.yaml").read_text(encoding="utf-8"))
    deployment = read(CLUSTER / "kuberay" / "mlflow.yaml")[0]
    given = {entry["name"] for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert len(wanted) == 5
    assert wanted <= set(compose["services"]["mlflow"]["environment"])
    assert wanted <= given


def pods() -> Iterator[tuple[str, Any]]:
    """Every pod that a Kubernetes file makes, with where it is made."""

    def search(value: Any, place: str) -> Iterator[tuple[str, Any]]:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key == "template":
                yield f"{place}.{key}", inner["spec"]
            if isinstance(inner, dict | list):
                yield from search(inner, f"{place}.{key}")

    for path in sorted((CLUSTER / "kuberay").glob("*.yaml")):
        for document in read(path):
            yield from search(document, named(path))


@pytest.mark.parametrize("pod", [pytest.param(pod, id=place) for place, pod in pods()])
def test_pods_are_locked_down_and_say_what_they_need(pod: Any) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert "readinessProbe" in container and "livenessProbe" in container
        assert not [
            entry for entry in container.get("env", []) if re.search("PASSWORD|KEY", entry["name"]) and "value" in entry
        ]


def test_ray_asks_for_its_token_everywhere() -> None:
    for name in ("raycluster", "rayjob"):
        document = read(CLUSTER / "kuberay" / f"{name}.yaml")[0]
        spec = document["spec"].get("rayClusterSpec", document["spec"])
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for path in (CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml", CLUSTER / "onprem.yaml", CLUSTER / "slurm.sbatch"):
        text = path.read_text(encoding="utf-8")
        assert "RAY_AUTH_MODE=token" in text and "--dashboard-host=0.0.0.0" not in text


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_cloud_gpus_are_on_spot_and_limited(name: str) -> None:
    document = read(CLUSTER / name)[0]
    for kind, node in document["available_node_types"].items():
        assert node["max_workers"] <= 16
        config = node["node_config"]
        spot = "spot" in str(config.get("InstanceMarketOptions", "")) or "SPOT" in str(config.get("scheduling", ""))
        assert spot == (kind != "head")


def test_files_have_no_secret_in_them() -> None:
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", path.read_text(encoding="utf-8"))
