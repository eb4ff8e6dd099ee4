"""The load that an MLflow server takes: calls that write an epoch's values, from one client and from several at once.

    python benchmarks/tracking.py [--clients 4] [--calls 100]

Starts a server (SQLite, one worker) on the loopback interface for as long as it runs, and prints one JSON object.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--calls", type=int, default=100)
    options = parser.parse_args()
    with mlflow_server() as address:
        print(json.dumps(_measure(address, options.clients, options.calls)))


@contextlib.contextmanager
def mlflow_server() -> Iterator[str]:
    """The address of an MLflow server (SQLite, one worker) of its own, as long as the context lasts."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", folder]
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(f"{address}/health")
            yield address
        finally:
            server.terminate()
            server.wait()


def _measure(address: str, clients: int, calls: int) -> dict[str, float]:
    """Milliseconds of a call by one client alone, and calls a second of all clients together."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(tracking_uri=address)
    runs = [client.create_run("0").info.run_id for _ in range(clients)]

    def write(run: str) -> None:
        for epoch in range(calls):
            client.log_batch(
                run, metrics=[Metric(f"m{index}", 0.5, int(time.time() * 1000), epoch) for index in range(10)]
            )

    began = time.perf_counter()
    write(runs[0])
    alone = (time.perf_counter() - began) / calls
    threads = [threading.Thread(target=write, args=[run]) for run in runs]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = clients * calls / (time.perf_counter() - began)
    return {"milliseconds_a_call": round(1000 * alone, 1), "calls_a_second": round(together, 1), "clients": clients}


def _wait(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the MLflow server did not come up")


if __name__ == "__main__":
    main()
