# SPDX-License-Identifier: Apache-2.0
"""What goes on all day and looks a little like an attack: each function lets a node live through one of it.

Each yields when a batch is to be cut, so that hours pass in a test of a second.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tests.support.batches import SECOND, Node, workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINUTE: Final = 60 * SECOND
MIRROR: Final = "151.101.2.132"


def fetch(node: Node, process: int, name: str, address: str, port: int = 443) -> None:
    """Ask, connect, close."""
    node.ask(process, name)
    node.answer(process, name, [address])
    node.connect(process, address, port)
    node.close(process, address, port)


def host_service(node: Node, executable: str, unit: str) -> int:
    """A service of the host, not of a pod."""
    node.workloads.append(workload(f"host/worker-1/{unit}", unit=unit))
    return node.service(executable, workload=len(node.workloads) - 1)


def apt_downloads(node: Node) -> Iterator[None]:
    """A package manager fetches a hundred packages from a mirror with many addresses."""
    manager = node.spawn(host_service(node, "/usr/bin/bash", "user-1.slice"), "/usr/bin/apt-get")
    node.images[manager]["serving"] = False
    method = node.spawn(manager, "/usr/lib/apt/methods/http")
    node.ask(method, "deb.debian.org")
    node.answer(method, "deb.debian.org", [f"151.101.{each}.132" for each in range(2, 200, 32)])
    for each in range(100):
        address = f"151.101.{2 + 32 * (each % 6)}.132"
        node.connect(method, address, 80)
        node.now_ns += SECOND // 3
        node.close(method, address, 80)
    yield


def maintainer_scripts(node: Node) -> Iterator[None]:
    """What packages run when they are configured, and a wheel that is built in /tmp."""
    manager = node.spawn(host_service(node, "/usr/sbin/sshd", "ssh.service"), "/usr/bin/dpkg")
    script = node.spawn(manager, "/usr/bin/dash", ["sh", "/var/lib/dpkg/info/x.postinst", "configure"])
    node.spawn(script, "/usr/bin/systemctl", ["systemctl", "daemon-reload"])
    node.spawn(script, "/tmp/fileX7/config", ["/tmp/fileX7/config"])
    yield


def git_over_ssh(node: Node) -> Iterator[None]:
    """A pod fetches from a public and from the company's own git server."""
    service = node.service("/usr/bin/ci-agent", serving=False)
    for name, address in (("github.com", "140.82.121.4"), ("git.corp.example", "10.20.0.7")):
        git = node.spawn(service, "/usr/bin/git", ["git", "fetch"])
        fetch(node, node.spawn(git, "/usr/bin/ssh", ["ssh", f"git@{name}"]), name, address, 22)
    yield


def ci_build(node: Node) -> Iterator[None]:
    """Compilers, tests that run from /tmp and talk to themselves, an artifact fetched and one pushed."""
    runner = node.service("/usr/bin/gitlab-runner", serving=False)
    shell = node.spawn(runner, "/usr/bin/bash", ["bash", "-e", "build.sh"])
    for each in range(40):
        node.spawn(shell, "/usr/bin/gcc", ["gcc", "-c", f"{each}.c"])
        node.spawn(shell, "/tmp/build/conftest")
    fetch(node, node.spawn(shell, "/usr/bin/curl", ["curl", "-o", "/tmp/build/dep.tgz", "https://x"]),
          "artifacts.corp.example", "10.20.0.9")  # fmt: skip
    go = node.spawn(shell, "/usr/local/go/bin/go", ["go", "test", "./..."])
    for each in range(5):
        test = node.spawn(go, f"/tmp/go-build371/b{each:03}/x.test")
        node.listen(test, 40000 + each)
        node.connect(test, "127.0.0.1", 40000 + each)
        fetch(node, test, "proxy.golang.org", "142.250.74.49")
    yield


def cron_curl(node: Node) -> Iterator[None]:
    """Every five minutes the same page, for a day."""
    cron = host_service(node, "/usr/sbin/cron", "cron.service")
    for _ in range(288):
        shell = node.spawn(node.fork(cron), "/usr/bin/dash", ["sh", "-c", "curl -s https://status.example"])
        fetch(node, node.spawn(shell, "/usr/bin/curl"), "status.example", MIRROR)
        node.now_ns += 5 * MINUTE
        yield


def health_probes(node: Node) -> Iterator[None]:
    """The kubelet asks each pod every ten seconds, of which some do not answer; for an hour."""
    kubelet = host_service(node, "/usr/bin/kubelet", "kubelet.service")
    for turn in range(360):
        for pod in range(30):
            node.connect(kubelet, f"10.1.2.{pod}", 8080 + pod % 3)
            node.close(kubelet, f"10.1.2.{pod}", 8080 + pod % 3)
            if pod < 5 and turn % 2:
                fail(node, kubelet, f"10.1.2.{pod}", 8080 + pod % 3)
        node.now_ns += 10 * SECOND
        if turn % 20 == 0:
            yield
    yield


def prometheus_scrapes(node: Node) -> Iterator[None]:
    """Sixty targets every 15 seconds, many ports, some down, for two hours; then a rack is down."""
    server = node.service("/bin/prometheus", ["prometheus", "--config.file=/etc/prometheus.yml"])
    for turn in range(480):
        for target in range(60):
            address, port = f"10.4.{target % 3}.{target}", (9100, 8080, 10250, 2379, 9090)[target % 5]
            node.connect(server, address, port)
            if target < 8 or (turn > 400 and target < 40):
                fail(node, server, address, port)
            else:
                node.close(server, address, port)
        node.now_ns += 15 * SECOND
        if turn % 10 == 0:
            yield
    yield


def jvm_with_many_threads(node: Node) -> Iterator[None]:
    """A pool of connections that reconnects, names cached for ever, calls as customers come."""
    dice = random.Random(7)
    java = node.service("/usr/lib/jvm/bin/java", ["java", "-jar", "/app/shop.jar"])
    partners = [f"203.0.113.{each}" for each in range(20, 30)]
    node.ask(java, "api.partner.example")
    node.answer(java, "api.partner.example", partners)
    for _ in range(200):
        node.ask(java, "db.shop.svc.cluster.local")
        node.answer(java, "db.shop.svc.cluster.local", ["10.96.7.7"])
        for _ in range(50):
            node.connect(java, "10.96.7.7", 5432)
            node.close(java, "10.96.7.7", 5432)
        for _ in range(dice.randrange(8)):
            partner = dice.choice(partners)
            node.connect(java, partner, 443)
            node.now_ns += dice.randrange(1, 60) * SECOND
            close(node, java, partner, 443, dice.randrange(300, 90_000), dice.randrange(900, 900_000))
        node.now_ns += dice.randrange(30, 200) * SECOND
        yield


def backup_with_rsync(node: Node) -> Iterator[None]:
    """A job in a pod and one on the host copy to the storage machine, nightly."""
    job = node.service("/usr/bin/backup", serving=False)
    cron = host_service(node, "/usr/sbin/cron", "cron.service")
    for _ in range(7):
        for parent in (job, node.fork(cron)):
            shell = node.spawn(parent, "/usr/bin/bash", ["bash", "/usr/local/bin/backup.sh"])
            rsync = node.spawn(shell, "/usr/bin/rsync", ["rsync", "-a", "/data", "storage:/backup"])
            fetch(node, node.spawn(rsync, "/usr/bin/ssh"), "storage.corp.example", "10.20.0.5", 22)
        node.now_ns += 24 * 60 * MINUTE
        yield


def name_server(node: Node) -> Iterator[None]:
    """The cluster's own: thousands of names of others, reverse ones, block lists."""
    dice = random.Random(3)
    server = node.service("/coredns", ["/coredns", "-conf", "/etc/coredns/Corefile"])
    for _ in range(20):
        for each in range(200):
            name = f"{dice.randrange(1 << 40):x}{each}.telemetry.example"
            node.ask(server, name, server="203.0.113.53")
            node.answer(server, name, ["203.0.113.80"])
        node.ask(server, "xmr.2miners.com", server="203.0.113.53")
        node.now_ns += MINUTE
        yield


def operators(node: Node) -> Iterator[None]:
    """A controller talks to the API and to the metadata service, as it was made to."""
    manager = node.service("/manager", ["/manager", "--leader-elect"])
    for _ in range(60):
        fetch(node, manager, "kubernetes.default.svc", "10.96.0.1")
        node.connect(manager, "169.254.169.254", 80)
        node.close(manager, "169.254.169.254", 80)
        node.now_ns += MINUTE
        yield


def inventory_of_names(node: Node) -> Iterator[None]:
    """A monitoring program asks for each of the company's machines, and looks their addresses up again."""
    watcher = node.service("/usr/bin/icinga2")
    for each in range(300):
        name = f"web{each}.rack{each % 9}.corp.example"
        fetch(node, watcher, name, f"10.7.{each % 9}.{each % 250}", 22)
        node.ask(watcher, f"{each % 250}.{each % 9}.7.10.in-addr.arpa")
        node.now_ns += 2 * SECOND
    yield


def fail(node: Node, process: int, address: str, port: int) -> None:
    """A connection is refused."""
    node.connect(process, address, port)
    node.add(
        "SocketClose", process, cookie=node.position, local_address="10.1.2.3", local_port=51044,
        remote_address=address, remote_port=port, inbound=False, established=False, bytes_sent=0,
        bytes_received=0, duration_ns=900_000,
    )  # fmt: skip


def close(node: Node, process: int, address: str, port: int, sent: int, received: int) -> None:
    """A connection ends that carried so much."""
    node.add(
        "SocketClose", process, cookie=node.position, local_address="10.1.2.3", local_port=51044,
        remote_address=address, remote_port=port, inbound=False, established=True, bytes_sent=sent,
        bytes_received=received, duration_ns=40_000_000,
    )  # fmt: skip


TWINS: Final[tuple[Callable[[Node], Iterator[None]], ...]] = (
    apt_downloads, maintainer_scripts, git_over_ssh, ci_build, cron_curl, health_probes, prometheus_scrapes,
    jvm_with_many_threads, backup_with_rsync, name_server, operators, inventory_of_names,
)  # fmt: skip
