# SPDX-License-Identifier: Apache-2.0
"""Pods from files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nsp.errors import CommandError
from nsp.inventory import load_pods

POD = {
    "uid": "u-1",
    "namespace": "shop",
    "name": "web-1",
    "labels": {"app": "web"},
    "node": "n",
    "ips": ["10.0.0.1"],
    "containers": [{"id": "c", "name": "web", "image": "web:1"}],
}


def kubernetes_pod(**metadata: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "uid": "u-2",
            "namespace": "shop",
            "name": "web-5d8f7c-x2v9k",
            "labels": {"app": "web", "pod-template-hash": "5d8f7c"},
            **metadata,
        },
        "spec": {"nodeName": "worker-1", "serviceAccountName": "default"},
        "status": {
            "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}],
            "initContainerStatuses": [{"name": "init", "image": "i", "containerID": "containerd://aa"}],
            "containerStatuses": [
                {"name": "web", "image": "web:1", "containerID": "cri-o://bb"},
                {"name": "waiting", "image": "web:1"},
            ],
        },
    }


def kubernetes_list(*pods: dict[str, Any]) -> str:
    return json.dumps({"kind": "List", "items": list(pods)})


def test_yaml_and_json_say_the_same() -> None:
    as_json = load_pods("f", json.dumps({"pods": [POD]}))
    as_yaml = load_pods(
        "f",
        "pods:\n- {uid: u-1, namespace: shop, name: web-1, labels: {app: web}, node: n, ips: [10.0.0.1],\n"
        "   containers: [{id: c, name: web, image: 'web:1'}]}\n",
    )
    assert as_json == as_yaml
    assert as_json["u-1"]["owner_kind"] is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("pods: [", "neither YAML nor JSON"),
        ("just text", "no list `pods`"),
        ("pods: {}", "no list `pods`"),
        (json.dumps({"pods": [POD], "more": 1}), "no list `pods`"),
        (json.dumps({"pods": [POD, {**POD, "uid": "u-2", "colour": "red"}]}), r"pods\[1\].*colour"),
        (json.dumps({"pods": [{**POD, "labels": {"app": 1}}]}), r"pods\[0\].*labels"),
        (json.dumps({"pods": [POD, POD]}), "u-1 is there twice"),
        (json.dumps({"pods": [{**POD, "uid": ""}]}), "uid is empty"),
        (json.dumps({"pods": ["text"]}), r"pods\[0\]"),
    ],
)
def test_a_wrong_file_is_refused_whole_with_the_place(text: str, named: str) -> None:
    with pytest.raises(CommandError, match=named) as refusal:
        load_pods("pods.yaml", text)
    assert "pods.yaml" in str(refusal.value)


def test_an_empty_list_is_no_pods() -> None:
    assert load_pods("f", "pods: []") == {}


def test_what_kubectl_prints_is_understood() -> None:
    (pod,) = load_pods("f", kubernetes_list(kubernetes_pod())).values()
    assert (pod["uid"], pod["node"], pod["service_account"]) == ("u-2", "worker-1", "default")
    assert pod["ips"] == ["10.0.0.2", "fd00::2"]
    assert [(each["id"], each["name"]) for each in pod["containers"]] == [
        ("aa", "init"),
        ("bb", "web"),
        ("", "waiting"),
    ]


def owner(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"kind": "Other", "name": "x"}, {"kind": kind, "name": name, "controller": True}]


def test_the_deployment_behind_a_replica_set_is_the_owner() -> None:
    pod = kubernetes_pod(ownerReferences=owner("ReplicaSet", "web-5d8f7c"))
    loaded = load_pods("f", kubernetes_list(pod))["u-2"]
    assert (loaded["owner_kind"], loaded["owner_name"]) == ("Deployment", "web")


def test_other_controllers_own_themselves() -> None:
    pod = kubernetes_pod(ownerReferences=owner("DaemonSet", "agent"))
    loaded = load_pods("f", kubernetes_list(pod))["u-2"]
    assert (loaded["owner_kind"], loaded["owner_name"]) == ("DaemonSet", "agent")


def test_pods_on_no_node_yet_and_other_objects_are_left_out() -> None:
    pending = kubernetes_pod(uid="u-3") | {"spec": {}}
    service = {"kind": "Service", "metadata": {"name": "s"}, "spec": {}}
    assert list(load_pods("f", kubernetes_list(pending, service, kubernetes_pod()))) == ["u-2"]
