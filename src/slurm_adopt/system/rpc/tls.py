# SPDX-License-Identifier: Apache-2.0
"""Byte streams to a slurmd: plain TCP, and TLS where TLSType=tls/s2n (25.05 and later).

Rules of this file:
1. The server's certificate must chain to the cluster's CA. Host names are not checked: Slurm's certificates do not
   carry them, and nobody else's do (documentation of TLSType). The credential inside says who it is.
2. Nobody but root and SlurmUser may write the CA file, as Slurm itself demands; links are followed.
3. TLS works on memory; all waiting is the task's.
"""

from __future__ import annotations

import os

from ...model import Fault
from ..slurm.accounts import uid_of_slurm_user
from ..tasks.files import read_trusted
from ..tasks.sockets import receive, send_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import ssl
    from typing import Union

    from ..slurm.conf import SlurmConf
    from ..tasks.task import Task

    Stream = Union["PlainStream", "TlsStream"]

MAX_CA_BYTES = 1 << 20
CHUNK = 16 * 1024


class TlsFault(Fault):
    """TLS could not be set up; the text says why."""

    def __init__(self, detail: str) -> None:
        super().__init__("caller-untrusted", detail)


class PlainStream:
    """A connected socket."""

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes, deadline_ns: int) -> Task[None]:
        """Send all of it."""
        return send_all(self.sock, data, deadline_ns)

    def receive(self, deadline_ns: int) -> Task[bytes]:
        """Some bytes; `ConnectionResetError` at the end."""
        return receive(self.sock, CHUNK, deadline_ns)


class TlsStream:
    """TLS over a connected socket."""

    def __init__(self, sock: _socket.socket, context: ssl.SSLContext, hint: str = "") -> None:
        import ssl

        self.sock = sock
        self.hint = hint
        self.errors = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self.fault: type[Exception] = ssl.SSLError
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    def handshake(self, deadline_ns: int) -> Task[None]:
        """`TlsFault` if the server does not speak TLS, or its certificate is not the cluster's."""
        while True:
            try:
                self.tls.do_handshake()
                yield from self._flush(deadline_ns)
                return
            except self.errors:
                yield from self._flush(deadline_ns)
                yield from self._feed(deadline_ns)
            except self.fault as error:
                raise TlsFault(f"{error}{self.hint}") from None

    def send(self, data: bytes, deadline_ns: int) -> Task[None]:
        """Send all of it."""
        while data:
            data = data[self.tls.write(data) :]
        yield from self._flush(deadline_ns)

    def receive(self, deadline_ns: int) -> Task[bytes]:
        """Some bytes; `ConnectionResetError` at the end."""
        while True:
            try:
                data = self.tls.read(CHUNK)
                if not data:
                    raise ConnectionResetError("the peer has ended TLS")
                return data
            except self.errors:
                yield from self._flush(deadline_ns)
                yield from self._feed(deadline_ns)
            except self.fault as error:
                raise TlsFault(str(error)) from None

    def _flush(self, deadline_ns: int) -> Task[None]:
        while self.outgoing.pending:
            yield from send_all(self.sock, self.outgoing.read(), deadline_ns)

    def _feed(self, deadline_ns: int) -> Task[None]:
        self.incoming.write((yield from receive(self.sock, CHUNK, deadline_ns)))


def _parameters(conf: SlurmConf) -> dict[str, str]:
    pairs = [item.partition("=") for item in conf.tls_parameters.split(",")]
    return {name.strip().lower(): value for name, _, value in pairs}


def _hint(conf: SlurmConf) -> str:
    """What to do where TLSParameters names no CA of the cluster's but the system's."""
    parameters = _parameters(conf)
    if "load_system_certificates" not in parameters or parameters.get("ca_cert_file"):
        return ""
    return " (load_system_certificates is not followed: name the cluster's CA in TLSParameters with ca_cert_file=)"


def read_ca(conf: SlurmConf) -> str:
    """The cluster's CA certificates; `TlsFault`."""
    path = _parameters(conf).get("ca_cert_file") or f"{os.path.dirname(conf.path)}/ca_cert.pem"
    try:
        text = read_trusted(path, (0, uid_of_slurm_user(conf)), MAX_CA_BYTES, follow=True)
    except OSError as error:
        raise TlsFault(f"{path}: {error.strerror}{_hint(conf)}") from None
    return text.decode("ascii", "replace")


def make_context(conf: SlurmConf) -> ssl.SSLContext:
    """Return the TLS context for this cluster's slurmds. Raises `TlsFault`. Loading ssl takes some 20 ms."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # on by default from Python 3.13 on; Slurm's documentation makes CAs without the extensions that it wants
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=read_ca(conf))
    except (ssl.SSLError, ValueError) as error:
        raise TlsFault(f"the CA file: {error}") from None
    # not load_system_certificates: nobody checks names here, so that anybody with a certificate would be a slurmd
    return context


def open_stream(sock: _socket.socket, conf: SlurmConf, tls: bool, deadline_ns: int) -> Task[Stream]:
    """The stream over a connected socket."""
    if not tls:
        return PlainStream(sock)
    stream = TlsStream(sock, make_context(conf), _hint(conf))
    yield from stream.handshake(deadline_ns)
    return stream
