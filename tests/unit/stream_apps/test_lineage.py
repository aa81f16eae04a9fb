# SPDX-License-Identifier: Apache-2.0
"""What descends from a service, by way of what, and where the tree is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.assembly import build_lineage_rules, build_programs
from stream_apps.config.document import StreamConfig
from stream_apps.correlate.lineage import Descent, descents
from stream_apps.correlate.view import BatchView
from tests.support.batches import SECOND, Node, workload

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = StreamConfig()
PROGRAMS = build_programs(CONFIG.correlate)
RULES = build_lineage_rules(CONFIG.correlate)


def view_of(node: Node, **changes: Any) -> BatchView:
    """All images of a node, under their own numbers."""
    batch = node.batch() | {"processes": [dict(each) for each in node.images]} | changes
    return BatchView(batch, PROGRAMS)


def descent(node: Node, index: int) -> Descent | None:
    return descents(view_of(node), RULES)[index]


def test_a_shell_below_a_service_is_the_cut_root_and_the_tool() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.spawn(web, "/usr/bin/dash", ["sh", "-c", "id"])
    assert descent(node, shell) == Descent(web, shell, shell)
    assert descent(node, web) == Descent(web)


def test_what_a_service_starts_without_a_shell_is_cut_where_it_leaves_the_service() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    convert = node.spawn(web, "/usr/bin/convert")
    shell = node.spawn(convert, "/usr/bin/dash")
    curl = node.spawn(shell, "/usr/bin/curl")
    assert descent(node, convert) == Descent(web, convert, 0)
    assert descent(node, curl) == Descent(web, convert, shell)


def test_forked_workers_are_the_service_and_stay() -> None:
    node = Node()
    master = node.service("/usr/bin/python3.11", ["gunicorn"])
    worker = node.fork(master)
    shell = node.spawn(worker, "/usr/bin/dash")
    assert descent(node, worker) == Descent(master)
    assert descent(node, shell) == Descent(master, shell, shell)


def test_a_forked_subshell_inherits_its_shells_descent() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.spawn(web, "/usr/bin/bash")
    assert descent(node, node.fork(shell)) == Descent(web, shell, shell)


def test_a_service_process_replaced_by_a_shell_is_its_own_cut_root() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.exec(web, "/usr/bin/dash")
    found = descent(node, shell)
    assert found == Descent(web, shell, shell)
    assert view_of(node).same_process(web, shell)


def test_another_workload_ends_the_descent() -> None:
    node = Node(workloads=[workload("host/worker-1/", "HOST"), workload("runtime"), workload("pod")])
    runtime = node.service("/opt/agent", workload=1)
    inside = node.spawn(runtime, "/usr/bin/dash", workload=2)
    assert descent(node, inside) is None


def test_two_cgroups_of_one_pod_are_one_workload() -> None:
    node = Node(workloads=[workload("host/worker-1/", "HOST"), workload("pod"), workload("pod")])
    web = node.service("/usr/sbin/nginx", workload=1)
    shell = node.spawn(web, "/usr/bin/dash", workload=2)
    assert descent(node, shell) == Descent(web, shell, shell)


@pytest.mark.parametrize(
    ("service_argv", "child", "child_argv", "is_service"),
    [
        (["node", "app.js"], "/usr/bin/node", ["node", "app.js"], True),
        (["node", "app.js"], "/usr/bin/node", ["node", "--inspect", "app.js"], True),
        (["node", "app.js"], "/usr/bin/node", ["node", "-e", "evil"], False),
        (["node", "app.js"], "/usr/bin/node", ["node", "/tmp/evil.js"], False),
        (["node", "app.js"], "/usr/bin/node", ["node", "-c", "from multiprocessing.spawn import x"], True),
        (["node", "app.js"], "/usr/bin/node", ["node", "-m", "ipykernel_launcher"], True),
    ],
)
def test_an_interpreter_is_its_service_only_with_the_services_script(
    service_argv: list[str], child: str, child_argv: list[str], is_service: bool
) -> None:
    node = Node()
    web = node.service("/usr/bin/node", service_argv)
    worker = node.spawn(web, child, child_argv)
    assert descent(node, worker) == (Descent(web) if is_service else Descent(web, worker, worker))


def test_a_program_that_execs_itself_is_still_the_service() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    assert descent(node, node.spawn(web, "/usr/sbin/nginx", ["nginx", "-g", "upgrade"])) == Descent(web)


def test_busybox_in_another_part_is_another_program() -> None:
    node = Node()
    web = node.service("/bin/busybox", ["httpd", "-f"])
    shell = node.spawn(web, "/bin/busybox", ["sh", "-c", "id"])
    assert descent(node, shell) == Descent(web, shell, shell)


@pytest.mark.parametrize(
    "manager", ["/usr/bin/supervisord", "/usr/sbin/sshd", "/usr/bin/containerd-shim-runc-v2"]
)
def test_what_managers_and_login_services_start_stands_for_itself(manager: str) -> None:
    node = Node()
    shell = node.spawn(node.service(manager), "/usr/bin/bash")
    assert descent(node, shell) is None
    web = node.spawn(shell, "/usr/sbin/nginx", serving=True)
    assert descent(node, web) == Descent(web)


def test_a_manager_in_an_interpreter_is_told_by_its_script() -> None:
    node = Node()
    manager = node.service("/usr/bin/python3.11", ["python3", "/usr/bin/supervisord", "-n"])
    assert descent(node, node.spawn(manager, "/usr/bin/dash")) is None


def test_a_login_service_that_an_intruder_starts_does_not_hide_him() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.spawn(web, "/usr/bin/dash")
    sshd = node.spawn(shell, "/usr/sbin/sshd", serving=True)
    assert descent(node, node.spawn(sshd, "/usr/bin/bash")) == Descent(web, shell, shell)


def test_an_intruders_listener_does_not_become_a_service() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.spawn(web, "/usr/bin/dash")
    implant = node.spawn(shell, "/tmp/implant", serving=True)
    assert descent(node, implant) == Descent(web, shell, shell)
    netcat = node.spawn(web, "/usr/bin/nc.openbsd", ["nc", "-l"], serving=True)
    assert descent(node, netcat) == Descent(web, netcat, netcat)


def test_a_service_started_by_a_serving_programs_script_at_its_start_is_a_service() -> None:
    node = Node()
    manager = node.service("/opt/launcher", image_ns=node.now_ns - SECOND)
    shell = node.spawn(manager, "/usr/bin/dash", ["sh", "entrypoint.sh"])
    app = node.spawn(shell, "/usr/bin/python3.11", ["python3", "app.py"], serving=True)
    assert descent(node, app) == Descent(app)


def test_an_entry_point_that_becomes_the_service_leaves_the_service_alone() -> None:
    node = Node()
    entry = node.service("/app/entry")
    app = node.exec(entry, "/usr/bin/python3.11", ["python3", "app.py"], serving=True)
    assert descent(node, app) == Descent(app)


def test_a_service_found_running_below_a_serving_program_is_a_service() -> None:
    node = Node()
    manager = node.service("/opt/launcher")
    shell = node.spawn(manager, "/usr/bin/dash", origin="INVENTORY")
    app = node.spawn(shell, "/app/checkout", serving=True, origin="INVENTORY")
    assert descent(node, app) == Descent(app)


def break_parent(value: int) -> Callable[[list[dict[str, Any]]], None]:
    def change(processes: list[dict[str, Any]]) -> None:
        processes[2]["parent"] = value

    return change


@pytest.mark.parametrize("parent", [-1, 99, 2])
def test_a_broken_link_costs_one_image_its_lineage_and_no_more(parent: int) -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.spawn(web, "/usr/bin/dash")
    processes = [dict(each) for each in node.images]
    break_parent(parent)(processes)
    view = view_of(node, processes=processes)
    found = descents(view, RULES)
    assert found[shell] is None
    assert found[web] == Descent(web)
    assert [place for place, _ in view.problems] == (["processes[2].parent"] if parent != 2 else [])


def test_links_in_a_circle_end() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    one = node.spawn(web, "/usr/bin/dash")
    processes = [dict(each) for each in node.images]
    processes[web]["parent"] = one
    view = view_of(node, processes=processes)
    descents(view, RULES)
    assert set(view.chain(one)) == {web, one, one - 1}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fork", "exec", "spawn", "serve"]),
        st.integers(0, 30),
        st.sampled_from(
            ["/usr/bin/dash", "/usr/bin/curl", "/usr/sbin/nginx", "/usr/bin/python3.11", "/usr/bin/id"]
        ),
    ),
    max_size=25,
)


def tree(steps: list[tuple[str, int, str]]) -> Node:
    node = Node()
    node.service("/usr/sbin/nginx")
    for action, number, program in steps:
        parent = 1 + number % (len(node.images) - 1)
        if action == "fork":
            node.fork(parent)
        elif action == "exec":
            node.exec(parent, program)
        elif action == "spawn":
            node.spawn(parent, program)
        else:
            node.images[parent]["serving"] = True
    return node


@given(STEPS)
def test_the_cut_root_is_below_the_service_and_never_the_service_nor_above_it(
    steps: list[tuple[str, int, str]],
) -> None:
    view = view_of(tree(steps))
    for index, found in enumerate(descents(view, RULES)):
        if found is None or not found.cut_root:
            continue
        chain = view.chain(index)
        below, above = chain[: chain.index(found.service)], chain[chain.index(found.service) :]
        assert view.processes[found.service]["serving"]
        assert found.cut_root in below
        # Cutting a process cuts all its images: none of them is the service or above it, except where the
        # service's own process was replaced.
        replaced = view.same_process(found.cut_root, found.service)
        assert replaced or all(not view.same_process(found.cut_root, each) for each in above)
        assert not found.tool or (found.tool in below and view.roles[found.tool] != "")


@given(STEPS)
def test_every_descendant_of_a_suspect_is_suspect_and_covered_by_the_same_cut(
    steps: list[tuple[str, int, str]],
) -> None:
    view = view_of(tree(steps))
    found = descents(view, RULES)
    for index, parent in enumerate(view.parents):
        above = found[parent]
        if not parent or above is None or not above.tool or view.processes[index]["serving"]:
            continue
        assert found[index] == above
        assert above.cut_root in view.chain(index)
