# SPDX-License-Identifier: Apache-2.0
"""What another configuration would change, in words that say the effect. For ``nsp config diff``.

Compared is what is meant, not how it is written: order of keys, comments and defaults that are spelt out make
no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nsp.letters import escaped
from stream_apps.config.changes import changed, name_of
from stream_apps.config.problems import shown
from stream_apps.sigma.build import surroundings
from stream_apps.sigma.loading import files_of, load

if TYPE_CHECKING:
    from stream_apps.config.changes import Setting
    from stream_apps.config.document import StreamConfig

_RULE: Final = "nsp."
_SUBJECTS: Final = {"sigma": "Sigma rules", "respond": "all rules", "learn": "learning"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that would be another.

    Attributes:
        name: Setting.
        old: As it is.
        new: As it would be.
        effect: What that does.
        needs_restart: Whether a process that runs takes it.
    """

    name: str
    old: Any
    new: Any
    effect: str
    needs_restart: bool

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {name: getattr(self, name) for name in self.__slots__}

    def text(self) -> str:
        """For people."""
        restart = " [needs a restart]" if self.needs_restart else ""
        return f"{self.name}: {self.effect}{restart}"


def differences(old: StreamConfig, new: StreamConfig) -> list[Difference]:
    """Everything that differs, in the order of the document."""
    return [
        Difference(name_of(after.place), before.value, after.value, effect, after.needs_restart)
        for before, after in changed(old, new)
        for effect in _effects(before, after)
    ]


def rule_differences(old: StreamConfig, new: StreamConfig) -> list[Difference]:
    """Sigma rules that come, go, or cannot be used any more, as far as both directories can be read here."""
    before, after = _titles(old), _titles(new)
    if before is None or after is None:
        return []
    gone = [(each, "is judged no more") for each in before if each not in after]
    come = [(each, "is judged from now on") for each in after if each not in before]
    titles = before | after
    return [
        Difference("detect.sigma", None, None, f"sigma.{each} ({escaped(titles[each])}) {effect}", False)
        for each, effect in gone + come
    ]


def _titles(config: StreamConfig) -> dict[str, str] | None:
    """The titles of the rules a configuration judges, by id; None: a directory is not here."""
    sigma = config.detect.sigma
    try:
        texts = [each for directory in sigma.directories if sigma.enabled for each in files_of(directory)]
    except OSError:
        return None
    verdicts = load(texts, surroundings(sigma)).verdicts
    return {each.rule_id: each.title for each in verdicts if each.status == "loaded"}


def _effects(before: Setting, after: Setting) -> list[str]:
    place = after.place
    rule = next((str(each) for each in place if str(each).startswith(_RULE)), "")
    subject = rule or _SUBJECTS.get(str(place[-2]), "")
    words = _WORDS.get(str(place[-1]))
    if words is not None and subject:
        return words(subject, before.value, after.value)
    if isinstance(after.value, list):
        return _of_list(before.value, after.value)
    if isinstance(after.value, dict):
        return _of_mapping(before.value, after.value)
    return [_of_value(before, after)]


def _of_value(before: Setting, after: Setting) -> str:
    old, new = before.value, after.value
    way = ""
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in (old, new)):
        way = "raised " if new > old else "lowered "
    meaning = after.field.description if after.field and after.field.description else ""
    said = f" ({' '.join(meaning.split()).rstrip('.')})" if meaning else ""
    return f"{way}from {shown(old)} to {shown(new)}{said}"


def _of_list(old: list[Any], new: list[Any]) -> list[str]:
    gone = [each for each in old if each not in new]
    come = [each for each in new if each not in old]
    found = [f"without {shown(each)}" for each in gone] + [f"with {shown(each)}" for each in come]
    return found or ["in another order"]


def _of_mapping(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = [f"without {name}" for name in old if name not in new]
    found += [f"with {name} = {shown(value)}" for name, value in new.items() if name not in old]
    both = [name for name in new if name in old and new[name] != old[name]]
    return found + [f"{name} from {shown(old[name])} to {shown(new[name])}" for name in both]


def _enabled(rule: str, _: Any, new: Any) -> list[str]:
    return [f"{rule}: switched {'on' if new else 'off: nothing comes of it any more'}"]


def _severity(rule: str, old: Any, new: Any) -> list[str]:
    was, is_now = (each or "the rule's own" for each in (old, new))
    return [f"the highest severity of {rule} is {is_now}, and was {was}"]


def _dry_run(rule: str, _: Any, new: Any) -> list[str]:
    if new:
        return [
            f"responses of {rule} are only told from now on; what is cut stays cut until its time is over"
        ]
    unless = ", unless respond.dry_run is true" if rule.startswith(_RULE) else ""
    return [f"responses of {rule} are carried out from now on: workloads are cut{unless}"]


def _default_exclusions(rule: str, _: Any, new: Any) -> list[str]:
    return [f"the exclusions that come with {rule} {'apply again' if new else 'apply no more: more alerts'}"]


def _exclusions(rule: str, old: Any, new: Any) -> list[str]:
    gone = [each for each in old if each not in new]
    come = [each for each in new if each not in old]
    return [f"{rule} alerts again where: {each['reason']}" for each in gone] + [
        f"{rule} alerts no more where: {each['reason']} ({shown(_conditions(each))})" for each in come
    ] or [f"the exclusions of {rule} are in another order: no effect"]


def _conditions(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "reason"}


def _actions(rule: str, old: Any, new: Any) -> list[str]:
    return [f"{rule} is answered by {_doing(new)}, and was by {_doing(old)}"]


def _doing(actions: list[dict[str, Any]]) -> str:
    # 3600 is the default of ttl_s, which a setting's value leaves out.
    return ", ".join(f"{each['action']} for {each.get('ttl_s', 3600)} s" for each in actions) or "nothing"


def _policies(_: str, old: Any, new: Any) -> list[str]:
    before, after = ({each["name"]: each for each in several} for several in (old, new))
    found = [
        f"policy {name} is gone: its alerts fall to those after it" for name in before if name not in after
    ]
    found += [
        f"policy {name} is new, number {number}: {_said(each)}"
        for number, (name, each) in enumerate(after.items(), 1)
        if name not in before
    ]
    for name, each in after.items():
        if name in before and each != before[name]:
            parts = _of_mapping(before[name], each)
            found.append(f"policy {name}: {'; '.join(parts)}")
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    if kept_before != kept_after:
        found.append(f"the policies are asked in another order: {', '.join(after)}")
    return found


def _said(policy: dict[str, Any]) -> str:
    conditions = {
        name: policy[name]
        for name in ("rules", "severities", "namespaces", "workloads", "labels")
        if name in policy
    }
    doing = _doing(policy["actions"]) if "actions" in policy else "quarantine-process for 3600 s"
    return f"for {shown(conditions) if conditions else 'all alerts'}, {doing}"


def _directories(_: str, old: Any, new: Any) -> list[str]:
    return [f"rules of {each} are gone" for each in old if each not in new] + [
        f"rules of {each} are judged" for each in new if each not in old
    ] or ["the same directories in another order: of two rules with one id the first is taken"]


Words = Callable[[str, Any, Any], list[str]]

_WORDS: Final[dict[str, Words]] = {
    "enabled": _enabled,
    "severity": _severity,
    "dry_run": _dry_run,
    "default_exclusions": _default_exclusions,
    "exclusions": _exclusions,
    "actions": _actions,
    "policies": _policies,
    "directories": _directories,
}
