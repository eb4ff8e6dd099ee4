"""Fixtures that every room's tests share."""

import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bgsweep.data import cores
from bgsweep.data.sample import Sample
from bgsweep.errors import warn_once

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Give every run an empty home folder, as a new machine has, so that no test leans on caches that others left."""
    if hasattr(config, "workerinput"):
        return  # pytest-xdist's workers inherit the environment of the process that started them
    home = tempfile.TemporaryDirectory(prefix="bgsweep-home-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR", "TORCH_HOME", "BGSWEEP_STORE"):
        os.environ.pop(name, None)
    os.environ["HOME"] = home.name


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images, stimuli and label files that stands beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder does not lie beside this checkout")
    return SHARED


@pytest.fixture(autouse=True)
def nothing_of_another_test() -> Iterator[None]:
    """Undo what a test leaves in this process: MLflow writes the store that it is told of into the environment, which
    the next test's processes inherit, a trial's share of the machine stays its process's, and each warning is given
    only once."""
    yield
    cores._own_share = None
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    warn_once.cache_clear()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one."""
    import torch.distributed as dist

    rendezvous = tmp_path_factory.mktemp("group") / "rendezvous"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 store on this machine with one empty bucket, ``bucket``; the environment has the keys to it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "tests"),
        ("AWS_SECRET_ACCESS_KEY", "tests"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
    ):
        monkeypatch.setenv(name, value)
    with urllib.request.urlopen(
        f"http://{host}:{port}/moto-api/reset", data=b""
    ):  # what the last test left in this process
        pass
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    yield client
    server.stop()


@pytest.fixture
def policy(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the store check who writes: call it with the keys (patterns) that it shall refuse from now on, by 403."""
    import boto3
    import moto.settings

    iam = boto3.client("iam", region_name="us-east-1")
    iam.create_user(UserName="driver")
    key = iam.create_access_key(UserName="driver")["AccessKey"]

    def deny(*keys: str) -> None:
        allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        denied = [
            {"Effect": "Deny", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::bucket/{one}"} for one in keys
        ]
        document = {"Version": "2012-10-17", "Statement": [allowed, *denied]}
        iam.put_user_policy(UserName="driver", PolicyName="p", PolicyDocument=json.dumps(document))

    deny()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    iam = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"]).client("iam", region_name="us-east-1")
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    return deny


def read(path: Path) -> Sample:
    mask = path.parents[3] / "masks" / path.relative_to(path.parents[2]).with_suffix(".png")
    return Sample(
        id=path.name,
        image=np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]),
        label=0,
        load_mask=lambda: cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE),
    )


@pytest.fixture(scope="session")
def samples(shared_data: Path) -> list[Sample]:
    """One image of each of the ten classes."""
    classes = sorted((shared_data / "clothing10" / "images" / "train").iterdir())
    return [read(sorted(folder.glob("*.jpg"))[7]) for folder in classes]


@pytest.fixture(scope="session")
def large(samples: list[Sample]) -> list[Sample]:
    """The same at 375 x 500 px."""
    enlarged = []
    for sample in samples:
        mask = cv2.resize(sample.mask, (500, 375))
        enlarged.append(Sample(sample.id, cv2.resize(sample.image, (500, 375)), 0, mask.copy))
    return enlarged


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts, or mounts anew, a file system in memory with the options given; skips where that is not allowed."""
    point = tmp_path / "disk"
    point.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        options = f"remount,{options}" if mounted else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", point], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this machine lets nobody mount a small disk")
        mounted = True
        return point

    yield mount
    if mounted:
        subprocess.run(["umount", point], check=True)
