"""Early checks of RAY_ADDRESS and MLFLOW_TRACKING_URI: Ray and MLflow wait minutes for a server that is unreachable.

Addresses are shown without their secrets (`bgsweep.errors.without_password`).
"""

import os
import re
import socket
from urllib.parse import urlsplit

from bgsweep.errors import UserError, without_password

_PATIENCE = 5.0  # seconds
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?|\[[\da-fA-F:]+\]:\d+(/.*)?")


def tracking_address() -> str | None:
    """MLFLOW_TRACKING_URI; None if it is not set.

    Raises:
        UserError: it is not the address of a server or database.
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


def check_webhook(url: str) -> str:
    """A webhook's address, as it is given.

    Raises:
        UserError: it is none; the message does not hold the address, which is a secret.
    """
    printable = url.isascii() and url.isprintable() and " " not in url
    if not printable or not url.startswith(("http://", "https://")) or not _host_and_port(url)[0]:
        raise UserError("--notify: not the address of a webhook; write https://HOST/PATH")
    return url


def webhook_host(url: str) -> str:
    """The part of a webhook's address that may be shown: its path is a secret."""
    return _host_and_port(url)[0]


def ray_address() -> str | None:
    """RAY_ADDRESS; None if Ray is to be started on this machine.

    Raises:
        UserError: a driver cannot join such an address, or no cluster answers there.
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
            f"{shown}: {kind}, through which a sweep cannot run; submit it as a job: `bgsweep submit FILE "
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
    """Try to connect to a port for some seconds; returns the reason for a failure, empty on success.

    Args:
        speaks_http2: require a gRPC server's greeting; Ray would wait for minutes for anything else that listens.
    """
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE) as connection:
            if speaks_http2:
                connection.sendall(_HTTP2_PREFACE)
                if connection.recv(9)[3:4] != b"\4":  # the type of a frame of settings
                    return "the server there is not Ray"
    except (
        OSError,
        ValueError,
        OverflowError,
    ) as error:  # not only network errors: a host name or port may be malformed
        return getattr(error, "strerror", None) or str(error)
    return ""


def silent(address: str) -> str:
    """Try to connect to the server of an HTTP address; returns the reason for a failure, empty on success.

    Empty, too, if the address is reached through a proxy, which cannot be tested this way.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return ""
    host, port = _host_and_port(address)
    import urllib.request  # takes 20 ms, which --help would take too

    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return ""
    return unreachable(host, port)


def _host_and_port(address: str) -> tuple[str, int]:
    """Host and port of an HTTP address; an empty host if it is malformed."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0
