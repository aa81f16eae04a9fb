# SPDX-License-Identifier: Apache-2.0
"""How to reach Kafka, said once for both client libraries.

Two libraries talk to the broker: aiokafka inside Faust, and librdkafka for everything else. Input is
librdkafka's property names; output is a configuration for each. A property that only one of the two could
honour is refused at start: half a TLS configuration would be a surprise at the worst moment.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_apps.streaming.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROTOCOL: Final = "security.protocol"
_CA: Final = "ssl.ca.location"
_CERTIFICATE: Final = "ssl.certificate.location"
_KEY: Final = "ssl.key.location"
SUPPORTED_PROPERTIES: Final = frozenset({_PROTOCOL, _CA, _CERTIFICATE, _KEY})

# A broker that comes back is noticed within this; librdkafka's own 10 s would add to the time to block.
_RECONNECT_MAX_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Where the brokers are and how to be let in.

    Attributes:
        bootstrap: ``host:port``, several separated by commas.
        properties: Of :data:`SUPPORTED_PROPERTIES`, with librdkafka's meaning.
    """

    bootstrap: str
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.properties) - SUPPORTED_PROPERTIES):
            raise StartError(
                f"Kafka property {', '.join(unknown)} is not supported by the stream app; "
                f"it knows {', '.join(sorted(SUPPORTED_PROPERTIES))}"
            )
        if self._protocol not in {"plaintext", "ssl"}:
            raise StartError(f"{_PROTOCOL} is plaintext or ssl, not {self._protocol!r}")
        if self._protocol == "plaintext" and set(self.properties) - {_PROTOCOL}:
            raise StartError(f"certificates are given, so {_PROTOCOL} must be ssl")

    @property
    def _protocol(self) -> str:
        return self.properties.get(_PROTOCOL, "plaintext").lower()

    def librdkafka(self, **more: Any) -> dict[str, Any]:
        """A client configuration; keywords are properties with ``_`` for ``.``."""
        return {
            "bootstrap.servers": self.bootstrap,
            "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
            # Its own lines on stderr say that a broker is away, over and over; we say it once, in our form.
            "log_level": 0,
            **self.properties,
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def faust_url(self) -> str:
        """The broker URL for Faust."""
        return ";".join(f"kafka://{each.strip()}" for each in self.bootstrap.split(","))

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context for Faust, None without TLS.

        Raises:
            StartError: A certificate file cannot be used; the text names it.
        """
        if self._protocol == "plaintext":
            return None
        try:
            context = ssl.create_default_context(cafile=self.properties.get(_CA))
            if certificate := self.properties.get(_CERTIFICATE):
                context.load_cert_chain(certificate, self.properties.get(_KEY))
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(value for name, value in self.properties.items() if name != _PROTOCOL)
            raise StartError(f"TLS files {files}: {error}") from error
        return context
