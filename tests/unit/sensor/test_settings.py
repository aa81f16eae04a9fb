# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sensor.errors import SettingsError
from sensor.settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path

BROKERS = ("--brokers", "kafka:9092", "--node", "node1")


def test_a_flag_wins_over_its_variable_and_that_over_the_default() -> None:
    settings = parse_settings([*BROKERS, "--batch-ms", "30"], {"NSP_BATCH_MS": "50", "NSP_BATCH_EVENTS": "9"})
    assert (settings.batch_ms, settings.batch_events, settings.compression) == (30, 9, "lz4")


def test_repeatable_flags_take_a_list_from_their_variable(tmp_path: Path) -> None:
    keys = [tmp_path / "a.pem", tmp_path / "b.pem"]
    for key in keys:
        key.write_text("")
    settings = parse_settings(
        [*BROKERS, "--kafka-option", "security.protocol=SSL", "--kafka-option", "ssl.ca.location=/ca"],
        {"NSP_ENFORCEMENT_PUBLIC_KEY": f"{keys[0]},{keys[1]}"},
    )
    assert settings.enforcement_public_keys == tuple(keys)
    assert settings.kafka_options == {"security.protocol": "SSL", "ssl.ca.location": "/ca"}


def test_self_tests_can_be_turned_off_and_be_as_often_as_a_measurement_wants() -> None:
    assert parse_settings(BROKERS, {}).selftest_interval_s == 300
    for text, seconds in (("0", 0), ("60", 60), ("0.05", 0.05)):
        assert parse_settings([*BROKERS, "--selftest-interval", text], {}).selftest_interval_s == seconds
    for text in ("-1", "0.001", "nan", "inf", "100000", "often"):
        with pytest.raises(SettingsError, match="selftest-interval"):
            parse_settings([*BROKERS, f"--selftest-interval={text}"], {})


def test_metrics_can_be_turned_off_and_listen_on_ipv6() -> None:
    assert parse_settings([*BROKERS, "--metrics-address", "none"], {}).metrics_address is None
    assert parse_settings([*BROKERS, "--metrics-address", "[::1]:9000"], {}).metrics_address == ("::1", 9000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--brokers", "NSP_BROKERS"]),
        (["--brokers", "kafka"], ["--brokers", "'kafka'", "host:port"]),
        ([*BROKERS, "--node", "a/b"], ["--node", "'a/b'", "letters"]),
        ([*BROKERS, "--batch-ms", "soon"], ["--batch-ms", "'soon'", "whole number"]),
        ([*BROKERS, "--batch-events", "0"], ["--batch-events", "'0'", "from 1 to"]),
        ([*BROKERS, "--ring-bytes", "100000"], ["--ring-bytes", "power of two"]),
        ([*BROKERS, "--compression", "rar"], ["--compression", "'rar'", "zstd"]),
        ([*BROKERS, "--log-format", "xml"], ["--log-format", "'xml'", "json"]),
        ([*BROKERS, "--kafka-option", "acks=1"], ["--kafka-option", "'acks'"]),
        ([*BROKERS, "--kafka-option", "acks"], ["--kafka-option", "name=value"]),
        ([*BROKERS, "--enforcement-public-key", "/nowhere.pem"], ["/nowhere.pem", "PEM"]),
        ([*BROKERS, "--metrics-address", "9477"], ["--metrics-address", "'9477'", "host:port"]),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_cure(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(arguments, {})
    for word in words:
        assert word in str(refused.value)
