# SPDX-License-Identifier: Apache-2.0
"""Sigma rules and events in numbers, made up: shaped as SigmaHQ's are, which cannot be shipped here.

The shapes and their shares are those counted in SigmaHQ's ``rules``: most ask for a program's name and for
words of its command line, many for words alone, some for the parent, a few for expressions; half have a
filter. Events are command lines of a busy host.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import yaml

from tests.support.batches import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEMS = (
    "net", "crypt", "dump", "scan", "shadow", "host", "key", "log", "proc", "sys", "pass", "user", "cred",
    "root", "hook", "load", "mount", "exec", "drop", "init",
)  # fmt: skip
# What rules and ordinary command lines have in common.
_COMMON_NAMES = ("bash", "sh", "dash", "python3.11", "curl", "grep", "find", "git", "java", "date")
_COMMON_WORDS = (
    " -c ",
    "http",
    "/etc/",
    "/srv/",
    " -o ",
    "/dev/null",
    ".sh",
    " --config",
    "/home/",
    ".com",
    ":8",
)
_COMMANDS = (
    (
        "/usr/bin/python3.11",
        "python3 /opt/app/manage.py run --bind 0.0.0.0:{0} --workers {1} --config {2}.toml",
    ),
    ("/usr/bin/bash", "bash -c 'cd /srv/{2} && ./deploy.sh --release {0} > /var/log/{2}.log 2>&1'"),
    ("/usr/bin/dash", "sh -c uptime -p | sed s/{1}/{0}/"),
    ("/usr/bin/curl", "curl -fsS https://api-{1}.example.com/v1/health/{0} -o /dev/null"),
    ("/usr/bin/grep", "grep -rn user_{0} /etc/{2} --include=*.conf"),
    ("/usr/bin/git", "git -C /home/ci/{2} fetch --depth {1} origin refs/heads/release-{0}"),
    ("/usr/lib/jvm/17/bin/java", "java -Xmx{1}g -jar /opt/{2}/service.jar --server.port={0}"),
    ("/usr/bin/date", "date +%s"),
    ("/usr/bin/find", "find /var/lib/{2} -name *.tmp -mtime +{1} -delete"),
    ("/usr/sbin/runc", "runc --root /run/containerd/runc init {0}{1}"),
)
_PARENTS = (
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/sbin/nginx",
    "/usr/lib/systemd/systemd",
    "/usr/bin/bash",
)


def rules(count: int, seed: int = 7) -> Iterator[tuple[str, str]]:
    """So many rules, as texts with names."""
    dice = random.Random(seed)
    for number in range(count):
        document = {
            "title": f"Made-up rule {number}", "id": str(UUID(int=number + 1)), "level": "medium",
            "logsource": {"category": "process_creation", "product": "linux"}, "detection": _detection(dice),
        }  # fmt: skip
        yield f"rule-{number}.yml", yaml.safe_dump(document, sort_keys=False)


def _detection(dice: random.Random) -> dict[str, Any]:
    selection: dict[str, Any] = {}
    shape = dice.random()
    if shape < 0.6:
        selection["Image|endswith"] = [f"/{_name(dice, shape)}" for _ in range(dice.randint(1, 3))]
    if shape < 0.1:
        selection["ParentImage|endswith"] = f"/{_name(dice, shape)}"
    if shape > 0.99:
        # Nothing that an index could use, like the one of SigmaHQ's for Linux.
        selection["CommandLine|re"] = rf"-(w|r)\s?([0-9a-f]{{2}}\s?){{{dice.randint(2, 9)},20}}"
    elif shape > 0.96:
        selection["CommandLine|re"] = rf"{_word(dice)}\s+-{dice.choice('abc')}\s*[0-9]{{2,}}"
    elif shape > 0.25:
        words = [f"{dice.choice([' -', ' --', '/', ''])}{_word(dice)}" for _ in range(dice.randint(1, 8))]
        if dice.random() < 0.3:
            words = [words[0], dice.choice(_COMMON_WORDS)]
        selection["CommandLine|contains|all" if len(words) < 3 else "CommandLine|contains"] = words
    if dice.random() < 0.5:
        return {"selection": selection, "condition": "selection"}
    filtered = {"CommandLine|contains": f" --{_word(dice)}"}
    return {"selection": selection, "filter_main": filtered, "condition": "selection and not 1 of filter_*"}


def _name(dice: random.Random, shape: float) -> str:
    """Of a program; where words of its command line are asked for too, one in ten is one that all run."""
    return dice.choice(_COMMON_NAMES) if shape > 0.25 and dice.random() < 0.1 else _word(dice)


def _word(dice: random.Random) -> str:
    return f"{dice.choice(_STEMS)}{dice.choice(['', '-', '_'])}{dice.choice(_STEMS)}{dice.randrange(40)}"


def batches(count: int, programs: int = 200, seed: int = 3) -> Iterator[dict[str, Any]]:
    """Batches of so many programs started; one in a thousand is one that rules are about."""
    dice = random.Random(seed)
    node = Node()
    parents = [node.service(path, workload=0) for path in _PARENTS]
    for _ in range(count):
        for _ in range(programs):
            path, line = dice.choice(_COMMANDS)
            text = line.format(
                dice.randrange(10_000, 65_535), dice.randrange(1, 9), dice.choice(_STEMS) + "er"
            )
            if dice.random() < 0.001:
                text += f" {_word(dice)}"
            node.spawn(dice.choice(parents), path, text.split(" "))
        node.events = [each for each in node.events if each[0] == "nsp.ProcessExec"]
        yield node.batch()
        del node.images[len(parents) + 1 :]
