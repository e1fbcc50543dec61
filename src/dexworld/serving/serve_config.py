"""Where a server listens, who may speak to it, and how much."""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen, and the limits of what is taken."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own needs --token-file, --tls-certificate and --tls-key."""
    port: int = 8000
    """Port; 0 takes a free one and logs it."""
    token_file: Path | None = None
    """File with the token that clients send as `Authorization: Api-Key TOKEN`."""
    tls_certificate: Path | None = None
    """Certificate chain (PEM), for wss and https."""
    tls_key: Path | None = None
    """Private key (PEM) of the certificate."""
    sessions: int = 4
    """Connections at a time."""
    message_mb: float = 16.0
    """Largest message, megabytes."""
    messages_per_second: float = 200.0
    """Messages of one connection; what comes faster waits."""
    max_seconds: float | None = None
    """End after so many seconds; None serves until it is stopped."""

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give both --tls-certificate and --tls-key, or neither")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"--max-seconds is {self.max_seconds}; it must be positive")
        if not self.local and (self.token_file is None or self.tls_certificate is None):
            why = f"--host {self.host} can be reached from other machines"
            raise ValueError(f"{why}: give --token-file, --tls-certificate and --tls-key, or listen on 127.0.0.1")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return self.host == "localhost"

    def token(self) -> str | None:
        """The token, if there is one. Raises ValueError for one that can be guessed."""
        if self.token_file is None:
            return None
        token = self.token_file.read_text(encoding="utf-8").strip()
        if len(token) < 16:
            raise ValueError(f"{self.token_file} holds {len(token)} characters; a token has at least 16")
        return token

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context, if there is one."""
        if self.tls_certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls_certificate, self.tls_key)
        return context
