# SPDX-License-Identifier: Apache-2.0
"""Profiles that would cut the sensor off, or the way in for emergencies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.addresses import to_mapped
from sensor.policy.errors import PolicyRefused
from sensor.policy.profile import compile_profile
from sensor.policy.safety import Broker, Protected, check_profile, parse_break_glass
from tests.support.profiles import TCP, application, network, profile, rules, service

PYTHON = "/usr/bin/python3.11"
KAFKA = network(rules("10.0.0.9/32", ports=((TCP, 9092, 9092),)))
PROTECTED = Protected(
    brokers=(Broker(to_mapped("10.0.0.9"), 9092),),
    sensor_unit="nsp-sensor.service",
    sensor_cgroup="/system.slice/nsp-sensor.service",
    sensor_executable=PYTHON,
    break_glass=parse_break_glass(["tcp:10.0.0.0/8:22 in ssh.service", "tcp:[2001:db8::/32]:22 in"]),
)


def host(*services: dict[str, str], **changed: Any) -> dict[str, Any]:
    return profile("host", namespace="host", scope="NODE", services=list(services), **changed)


def check(record: dict[str, Any]) -> None:
    check_profile(compile_profile(record), PROTECTED)


@pytest.mark.parametrize(
    "selector",
    [
        service(unit="nsp-sensor.service"),
        service(cgroup_path="/system.slice"),
        service(cgroup_path="/system.slice/nsp-sensor.service"),
        service(executable=PYTHON),
    ],
)
def test_a_profile_that_would_cut_the_sensor_s_connection_is_refused(selector: dict[str, str]) -> None:
    elsewhere = service(unit="elsewhere.service")
    with pytest.raises(PolicyRefused) as refused:
        check(host(elsewhere, selector))
    assert "spec.services[1] selects it and would cut the sensor's own connection" in refused.value.message
    assert "to Kafka at 10.0.0.9:9092 (" in refused.value.message
    assert "do not select it" in refused.value.cure


def test_one_that_lets_it_pass_or_only_alerts_or_selects_others_is_taken() -> None:
    unit = service(unit="nsp-sensor.service")
    check(host(unit, default=KAFKA))
    check(host(unit, mode="ALERT"))
    check(host(unit, dry_run=True))
    check(host(service(unit="nginx.service"), service(executable="/usr/bin/curl")))
    check(profile())


def test_a_broker_known_by_name_may_be_allowed_by_name_and_must_be_resolvable() -> None:
    named = replace(
        PROTECTED,
        brokers=(Broker(to_mapped("10.0.0.9"), 9092, "kafka.example.com"),),
        resolvers=(to_mapped("10.0.0.53"),),
    )

    def check_named(egress: dict[str, Any] | None) -> None:
        selected = host(service(unit="nsp-sensor.service"), default=network(egress))
        check_profile(compile_profile(selected), named)

    check_named(rules(names=("*.example.com",)))
    check_named(rules(names=("kafka.example.com",), ports=((TCP, 9092, 9092),)))
    with pytest.raises(PolicyRefused, match=r"connection to Kafka at 10\.0\.0\.9:9092"):
        check_named(rules(names=("other.example.com",)))
    with pytest.raises(PolicyRefused, match=r"question for kafka\.example\.com to 10\.0\.0\.53:53"):
        check_named(rules("10.0.0.9/32"))


def test_what_would_stop_the_sensor_s_words_to_kafka_is_refused_too() -> None:
    web = rules("10.0.0.9/32", l7_given=application("HTTP"))
    with pytest.raises(PolicyRefused, match="connection to Kafka"):
        check(host(service(unit="nsp-sensor.service"), default=network(web)))
    tls = application("HTTPS", sni=["kafka.example.com"])
    encrypted = replace(
        PROTECTED, brokers=(Broker(to_mapped("10.0.0.9"), 9093, "kafka.example.com", encrypted=True),)
    )
    spoken = host(service(unit="nsp-sensor.service"), default=network(rules("10.0.0.9/32", l7_given=tls)))
    check_profile(compile_profile(spoken), encrypted)
    with pytest.raises(PolicyRefused, match="connection to Kafka"):
        check(spoken)


def test_a_profile_of_pods_may_not_cut_the_sensor_s_own() -> None:
    inside = replace(PROTECTED, sensor_pod="0a1b")
    check_profile(compile_profile(profile()), inside, ["2c3d"])
    with pytest.raises(PolicyRefused, match=r"spec\.selector selects it and would cut the sensor's own"):
        check_profile(compile_profile(profile()), inside, ["0a1b", "2c3d"])


def test_a_profile_that_would_close_the_emergency_exit_of_its_service_is_refused() -> None:
    ssh = service(unit="ssh.service")
    with pytest.raises(PolicyRefused, match=r"would cut the break-glass entry 'tcp:10\.0\.0\.0/8:22 in"):
        check(host(ssh))
    with pytest.raises(PolicyRefused, match="break-glass"):
        # The first address of the range may come in, the last may not.
        check(host(ssh, default=network(None, rules("10.0.0.0/9"))))
    check(host(ssh, default=network(None, rules("10.0.0.0/8", ports=((TCP, 22, 22),)))))


def test_an_entry_without_a_service_speaks_of_profiles_that_select_everything() -> None:
    everything = service(cgroup_path="/")
    allowed = KAFKA | {"ingress": rules("10.0.0.0/8", ports=((TCP, 22, 22),))}
    with pytest.raises(PolicyRefused, match=r"'tcp:\[2001:db8::/32\]:22 in'"):
        check(host(everything, default=allowed))
    both = KAFKA | {"ingress": rules("10.0.0.0/8", "2001:db8::/32", ports=((TCP, 22, 22),))}
    check(host(everything, default=both))


@pytest.mark.parametrize(
    "text",
    [
        "tcp:10.0.0.0/8:22",
        "10.0.0.0/8:22 in",
        "tcp:10.0.0.0/33:22 in",
        "tcp:10.0.0.0/8:0 in",
        "tcp:10.0.0.0/8:70000 in",
        "icmp:10.0.0.0/8:1 in",
        "tcp:[10.0.0.0/40]:22 in",
    ],
)
def test_what_is_no_entry_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(PolicyRefused, match="write it like"):
        parse_break_glass([text])


def test_an_emergency_exit_is_a_short_list() -> None:
    with pytest.raises(PolicyRefused, match="257 break-glass entries are more than 256"):
        parse_break_glass(["tcp:10.0.0.0/8:22 in"] * 257)
