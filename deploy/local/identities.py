"""Mutual TLS for the one-machine stack: a certificate for each part, made when it starts, renewed while it runs."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from bonafide.connection import Credentials
from deploy.local.authority import LIFE, Authority, server_name, spiffe_id
from deploy.topology import TRITON, Component
from services.common.certificates import CertificateFiles

CALLER = "caller"
"""Whose certificate the stack's own user shows to the gateway."""

_WHOLE_LIFE = dt.timedelta(days=90)
_RENEWAL = LIFE / 2


class Identities:
    """The authority of one stack and the files that it signed; its key is in this process's memory only.

    Services take new files up while they run. Triton reads its own once, so they last as long as the authority.
    """

    def __init__(
        self, directory: Path, components: Sequence[Component], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.directory = directory
        self._clock = clock
        self.authority = Authority(_WHOLE_LIFE)
        self._names = [CALLER, *(component.name for component in components)]
        self._files = {TRITON: self.authority.issue(TRITON, directory, life=_WHOLE_LIFE, loopback=True)}
        self._renewed = 0.0
        self.renew()

    def files(self, name: str) -> CertificateFiles:
        """The files of one part."""
        return self._files[name]

    def renew(self) -> None:
        """Sign new certificates for everybody but Triton."""
        self._renewed = self._clock()
        self._files |= {name: self.authority.issue(name, self.directory) for name in self._names}

    def renew_if_due(self) -> None:
        """Sign new ones when half of the life of the present ones is over."""
        if self._clock() - self._renewed > _RENEWAL.total_seconds():
            self.renew()

    def environment(self, component: Component) -> dict[str, str]:
        """The settings of a service by environment variable."""
        own = self._files[component.name]
        settings = _three("TLS", own)
        if component.runs_models:
            settings["ALLOWED_PEERS"] = json.dumps([spiffe_id("gateway")])
            settings |= _three("TRITON", own)
        else:
            settings["ALLOWED_PEERS"] = json.dumps([spiffe_id(CALLER)])
            settings |= _three("PEER", own)
            settings |= {f"{peer.upper()}_SERVER_NAME": server_name(peer) for peer in component.peers.values()}
        return {component.prefix + name: value for name, value in settings.items()}

    def credentials(self, name: str = CALLER) -> Credentials:
        """What a client shows to the gateway."""
        files = self._files[name]
        return Credentials(
            root_certificates=files.authorities,
            certificate=files.chain,
            private_key=files.key,
            server_name=server_name("gateway"),
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What the stack itself shows to Triton."""
        read = self._files[CALLER].read()
        return grpc.ssl_channel_credentials(read.authorities, read.key, read.chain)


def _three(prefix: str, files: CertificateFiles) -> dict[str, str]:
    return {
        f"{prefix}_CERTIFICATE": str(files.chain),
        f"{prefix}_KEY": str(files.key),
        f"{prefix}_AUTHORITIES": str(files.authorities),
    }
