"""Addresses of servers in the environment, checked before a library waits minutes for one that is not there.

What may be shown of an address is `bgsweep.errors.without_password`'s to say.
"""

import os
import re
import socket
import urllib.request
from urllib.parse import urlsplit

from bgsweep.errors import UserError, without_password

_PATIENCE = 5.0  # seconds
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?|\[[\da-fA-F:]+\]:\d+(/.*)?")


def tracking_address() -> str | None:
    """MLFLOW_TRACKING_URI; None where it is not set.

    Raises:
        UserError: it names no server or database.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        return None
    shown = f"MLFLOW_TRACKING_URI={without_password(address)}"
    if "://" not in address or address.startswith("file:"):
        if address.startswith(("databricks", "uc:")) or "MLFLOW_ALLOW_FILE_STORE" in os.environ:
            return address
        if _HOST_AND_PORT.fullmatch(without_password(address)):
            raise UserError(f"{shown}: the scheme is missing; add http://: http://{without_password(address)}")
        raise UserError(
            f"{shown}: not a server (http://HOST:5000) or a database (sqlite:////FOLDER/mlflow.db); for runs in a "
            "folder unset it and name the folder by --store"
        )
    if address.startswith(("http://", "https://")) and not _host_and_port(address)[0]:
        raise UserError(f"{shown}: not an address; write http://HOST:PORT")
    return address


def ray_address() -> str | None:
    """RAY_ADDRESS; None where Ray starts on this machine.

    Raises:
        UserError: it is no address that a driver can join, or no cluster answers there.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return None
    if address == "auto":
        return address
    shown = f"RAY_ADDRESS={without_password(address)}"
    if "://" in address:
        kind = "a Ray Client address" if address.startswith("ray://") else "not the address of a cluster's GCS"
        raise UserError(
            f"{shown}: {kind}, which a sweep cannot be driven through; send it as a job: `bgsweep submit FILE "
            "--address http://HEAD:8265`, or run on a node of the cluster with RAY_ADDRESS=auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{shown}: name HOST:PORT (Ray's port is usually 6379), or auto on a node of the cluster")
    missing = unreachable(host.strip("[]"), int(port), speaks_http2="RAY_USE_TLS" not in os.environ)
    if missing:
        raise UserError(f"{shown}: no Ray cluster there ({missing}); start it, or unset RAY_ADDRESS to start Ray here")
    return address


def unreachable(host: str, port: int, speaks_http2: bool = False) -> str:
    """Why nothing answers at a port within seconds; empty where something does.

    Args:
        speaks_http2: it must greet as gRPC servers do; Ray waits for minutes for anything else that listens.
    """
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE) as connection:
            if speaks_http2:
                connection.sendall(_HTTP2_PREFACE)
                if connection.recv(9)[3:4] != b"\4":  # the type of a frame of settings
                    return "something else listens there"
    except (OSError, ValueError, OverflowError) as error:  # not only of networks: a host's name or port can be none
        return getattr(error, "strerror", None) or str(error)
    return ""


def silent(address: str) -> str:
    """Why the server of an HTTP address does not answer; empty where it does, or where only a proxy could tell."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return ""
    host, port = _host_and_port(address)
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return ""
    return unreachable(host, port)


def _host_and_port(address: str) -> tuple[str, int]:
    """Of an HTTP address; an empty host where it is none."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0
