# SPDX-License-Identifier: Apache-2.0
"""One description of the brokers for two client libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_apps.streaming.connection import KafkaConnection
from stream_apps.streaming.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path


def test_both_libraries_get_every_broker() -> None:
    connection = KafkaConnection("one:9092, two:9093")
    assert connection.librdkafka(group_id="g")["bootstrap.servers"] == "one:9092, two:9093"
    assert connection.librdkafka(group_id="g")["group.id"] == "g"
    assert connection.faust_url() == "kafka://one:9092;kafka://two:9093"
    assert connection.ssl_context() is None


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"sasl.username": "u"}, "sasl.username"),
        ({"security.protocol": "sasl_ssl"}, "sasl_ssl"),
        ({"ssl.ca.location": "ca.pem"}, "security.protocol must be ssl"),
    ],
)
def test_what_only_one_library_could_honour_is_refused(properties: dict[str, str], named: str) -> None:
    with pytest.raises(StartError, match=named):
        KafkaConnection("b:1", properties)


def test_an_unusable_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    connection = KafkaConnection("b:1", {"security.protocol": "ssl", "ssl.ca.location": str(file)})
    with pytest.raises(StartError, match=r"ca\.pem"):
        connection.ssl_context()
