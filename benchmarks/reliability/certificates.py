"""Certificates for every hop of a system under test, and the ways in which they go bad."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path

from deploy.local.authority import Authority, server_name, spiffe_id
from deploy.local.processes import free_ports
from deploy.topology import COMPONENTS

GATEWAY = "gateway"
BRIEF = dt.timedelta(seconds=8)
"""Longer than connections live, so that it is in force before it expires."""


class HopCertificates:
    """mTLS between a gateway and the services behind it, from an authority of its own.

    Args:
        directory: where the PEM files are; the processes read them again when they change.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = Authority()

    def environment(self, gateways: Sequence[str]) -> dict[str, dict[str, str]]:
        """The environment of each process that has every hop behind the gateways encrypted and identified."""
        environment: dict[str, dict[str, str]] = {}
        caller = self._authority.issue(GATEWAY, self._directory / GATEWAY)
        called = {"PEER_CERTIFICATE": caller.chain, "PEER_KEY": caller.key, "PEER_AUTHORITIES": caller.authorities}
        names: dict[str, object] = {}
        for component in COMPONENTS:
            if component.name == GATEWAY:
                continue
            files = self._authority.issue(component.name, self._directory / component.name)
            (port,) = free_ports(1)
            settings = {
                "TLS_CERTIFICATE": files.chain,
                "TLS_KEY": files.key,
                "TLS_AUTHORITIES": files.authorities,
                "ALLOWED_PEERS": json.dumps([spiffe_id(GATEWAY)]),
                "HEALTH_LISTEN": f"127.0.0.1:{port}",
            }
            environment[component.name] = {component.prefix + name: str(value) for name, value in settings.items()}
            names[f"{component.name.upper()}_SERVER_NAME"] = server_name(component.name)
        prefix = next(component.prefix for component in COMPONENTS if component.name == GATEWAY)
        for gateway in gateways:
            environment[gateway] = {prefix + name: str(value) for name, value in {**called, **names}.items()}
        return environment

    def renew(self, name: str) -> None:
        """A good certificate for a service."""
        self._authority.issue(name, self._directory / name)

    def push_expired(self, name: str) -> None:
        """A certificate that has expired already, as from a deployment gone wrong."""
        self._authority.issue(name, self._directory / name, life=dt.timedelta(hours=-1))

    def push_brief(self, name: str) -> None:
        """A certificate that is good when it is read and expires in force soon after."""
        self._authority.issue(name, self._directory / name, life=BRIEF)
