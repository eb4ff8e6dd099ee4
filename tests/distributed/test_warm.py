"""The environment of trials' processes."""

import pytest

from bgsweep.config import resolve
from bgsweep.distributed.warm import trial_environment, trials_apart


@pytest.mark.parametrize("workers", [1, 2])
def test_no_key_is_in_an_environment_which_ray_would_log(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    config = resolve({"experiment": {"data": {"images": "sample"}, "workers": {"count": workers}}})
    ENV_VARS_TO_PROPAGATE.add("AWS_SECRET_ACCESS_KEY")
    with trials_apart(config):
        variables = trial_environment().get("runtime_env", {}).get("env_vars", {})
        assert "AWS_SECRET_ACCESS_KEY" not in ENV_VARS_TO_PROPAGATE and "planted" not in variables.values()
        assert ("RAY_API_SERVER_ADDRESS" in variables) == (workers == 1)
    assert trial_environment() == {}
