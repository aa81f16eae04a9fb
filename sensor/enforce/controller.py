# SPDX-License-Identifier: Apache-2.0
"""Decides what to do about each message and each moment; knows neither Kafka nor BPF.

Input: messages of nsp.enforcement, first the history up to where the topic ended at start, then live
ones, and a tick about every 100 ms. Output: calls on the applier, statuses, notices, counters.

The topic is desired state. From the history only the newest order of each subject counts, and nothing is
carried out before all of it is read: a lift at its end must not come minutes after the cut at its
beginning. What the kernel still enforces from an earlier sensor stays in force meanwhile.

Failure: an order that cannot be carried out is tried again, less and less often, until it expires.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from schemas.subject import ProcessSubject, Subject
from sensor.enforce.active import Active
from sensor.enforce.errors import NotAppliedError, Refused
from sensor.enforce.ledger import Ledger
from sensor.enforce.notices import Budget
from sensor.enforce.order import Order
from sensor.enforce.profile_order import ProfileOrder, WorkloadsOrder
from sensor.enforce.verify import Tombstone

if TYPE_CHECKING:
    from sensor.enforce.apply import Applier
    from sensor.enforce.clock import Clock
    from sensor.enforce.ports import Notices, Reports
    from sensor.enforce.process_cut import Cut
    from sensor.enforce.profiles import ProfileOrders
    from sensor.enforce.status import Outcome, Reporter
    from sensor.enforce.verify import AnyOrder, Verifier


# Entries nobody owns, and generations nobody can replay, are of no hurry.
SWEEP_NS: Final = 10_000_000_000

# A socket can come into quarantined hands after the cut: accepted from a listener that was inherited, or sent
# by somebody who keeps no copy. No hook sees that, so it is looked for: 0.15 ms for a hundred processes.
RESTAMP_NS: Final = 1_000_000_000

# Rounds of ending whoever is left of a tree, one a tick: five seconds. Who forks faster than that is off the
# network all the same, and a person hears of it.
MAX_KILL_ROUNDS: Final = 50

# Neither the operator's nor the sensor's fault, and repeated by each reading of the history.
_QUIET: Final = frozenset({"other-boot"})
_QUIET_IN_HISTORY: Final = frozenset({"other-boot", "replayed"})


class Controller:
    """The state of all subjects on this node.

    ``counters`` and ``refused`` (by reason) are read by the metrics.
    """

    def __init__(  # noqa: PLR0913 - its collaborators, each of them one thing
        self,
        verifier: Verifier,
        applier: Applier,
        reporter: Reporter,
        reports: Reports,
        notices: Notices,
        clock: Clock,
        *,
        profiles: ProfileOrders,
    ) -> None:
        self.profiles = profiles
        self._verifier = verifier
        self._applier = applier
        self._reporter = reporter
        self._reports = reports
        self._notices = notices
        self._clock = clock
        self._ledger = Ledger()
        self._desired: dict[Subject, Order] = {}
        self._active: dict[Subject, Active] = {}
        self._budget = Budget()
        self._started_wall_ns = clock.wall_ns()
        self._sweep_at_ns = 0
        self._restamp_at_ns = 0
        self.history_read = False
        self.counters: dict[str, int] = {}
        self.refused: dict[str, int] = {}

    @property
    def in_force(self) -> int:
        """How many orders the kernel enforces now."""
        return sum(bool(active.applied_boot_ns) for active in list(self._active.values()))

    @property
    def idle(self) -> bool:
        """Nothing is in force, nothing is to be tried again: only a message can bring work."""
        return self.history_read and not (self._active or self._desired or self.profiles.active)

    def count(self, what: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counters[what] = self.counters.get(what, 0) + by

    def message(self, key: bytes | None, value: bytes | None) -> None:
        """Take one message of the topic, in its order."""
        try:
            order = self._newest(key, value)
            if isinstance(order, ProfileOrder | WorkloadsOrder):
                self.profiles.take(order)
                return
        except Refused as refusal:
            self._refuse(refusal)
            return
        if order is None:
            return
        if self.history_read:
            self._obey(order)
        else:
            self._desired[order.subject] = order

    def history_complete(self) -> None:
        """The topic's end at start is reached: from here the kernel is what the topic says."""
        self.history_read = True
        self._adopt()
        self._obey_desired()
        self.profiles.carry_out()
        self._sweep(self._clock.boot_ns())

    def _obey_desired(self) -> None:
        # One by one: should an order show a defect, the next tick goes on with those after it.
        while self._desired:
            _, order = self._desired.popitem()
            self._obey(order)

    def _adopt(self) -> None:
        try:
            self.count("adopted", self._applier.adopt())
        except NotAppliedError:
            # The orders themselves, and the sweep, will meet the same kernel again and say so.
            self.count("adopt_failed")

    def _newest(self, key: bytes | None, value: bytes | None) -> AnyOrder | None:
        found = self._verifier.read(key, value)
        if found is None:
            self.count("other_node")
            return None
        if isinstance(found, Tombstone):
            self._tombstone(found)
            return None
        if not isinstance(found, Order):
            return found
        if self._ledger.admit(found, self._clock.wall_ns()):
            return found
        self.count("repeated")
        return None

    def _tombstone(self, tombstone: Tombstone) -> None:
        """Clears the topic only. One for what is in force would be an unsigned lift."""
        subjects = self._active if self.history_read else self._desired
        now_ns = self._clock.wall_ns()
        for subject, held in subjects.items():
            order = held.order if isinstance(held, Active) else held
            if str(subject) == tombstone.subject and not order.lifts and order.expires_at_ns > now_ns:
                detail = "a tombstone does not lift an order in force; a signed order does"
                raise Refused("unsigned", detail, tombstone.subject, order.generation)
        if self.profiles.holds(tombstone.subject):
            raise Refused("unsigned", "a tombstone does not remove a profile", tombstone.subject)
        self.count("tombstone")

    def _refuse(self, refusal: Refused) -> None:
        self.refused[refusal.reason] = self.refused.get(refusal.reason, 0) + 1
        if refusal.reason in (_QUIET if self.history_read else _QUIET_IN_HISTORY):
            return
        if not self._budget.take(self._clock.boot_ns()):
            self.count("refusals_not_reported")
            return
        self._reports.send(self._reporter.refused(refusal, self._clock.wall_ns()))
        self._notices.notice("ENFORCEMENT_REFUSED", refusal.subject, str(refusal))

    def _obey(self, order: Order) -> None:
        active = self._active.get(order.subject)
        now_ns = self._clock.wall_ns()
        if order.expires_at_ns <= now_ns:
            self._expired_on_arrival(order, active)
        elif order.lifts:
            self._end(active or Active(order, 0), order, "lifted")
        else:
            forbidden = self._applier.forbids_kill(order.subject) if order.killed else ""
            if forbidden:  # what was in force before stays
                self._refuse(Refused("protected", forbidden, str(order.subject), order.generation))
                return
            expires_boot_ns = self._clock.boot_ns() + order.expires_at_ns - now_ns
            self._active[order.subject] = Active(order, expires_boot_ns)
            self._try(self._active[order.subject])

    def _expired_on_arrival(self, order: Order, active: Active | None) -> None:
        """Never carried out. It still replaces what was in force before it."""
        if active is not None:
            self._end(active, order, "replaced by an order that has expired")
        elif order.issued_at_ns >= self._started_wall_ns:
            detail = "it expired before it arrived"
            self._refuse(Refused("expired", detail, str(order.subject), order.generation))
        else:
            self.count("expired_before_start")

    def _try(self, active: Active) -> None:
        try:
            cut = self._applier.apply(active.order, active.expires_boot_ns)
        except NotAppliedError as error:
            self._not_applied(active, error)
            return
        active.succeeded(self._clock.boot_ns(), cut)
        # A fork that raced with the last scan has finished by the next tick.
        active.rescan = isinstance(active.order.subject, ProcessSubject) and bool(cut.processes)
        self.count("killed", cut.killed)
        self.count("applied")
        self._report(active, "APPLIED")

    def _not_applied(self, active: Active, error: NotAppliedError) -> None:
        self.count("not_applied")
        if active.failed(self._clock.boot_ns(), error.reason):
            self._report(active, "FAILED", error.reason)
        if not error.retry:
            del self._active[active.order.subject]

    def _end(self, active: Active, order: Order, reason: str) -> None:
        """Take a subject out of the kernel; ``order`` is the one that ends it."""
        try:
            if active.applied_boot_ns:
                self._count_refusals([active])
            self._applier.free(order.subject)
        except NotAppliedError as error:
            # It stays, due to end, and is tried again. The kernel's own expiry does not wait for it.
            self._active[order.subject] = active
            active.order = order
            active.expires_boot_ns = 0
            self._not_applied(active, error)
            return
        self._active.pop(order.subject, None)
        self.count("ended")
        active.order = order
        self._report(active, "ENDED", reason)

    def tick(self) -> None:
        """Do what the time asks for: ends, retries, first refusals."""
        if not self.history_read:
            return
        self._obey_desired()
        now_ns = self._clock.boot_ns()
        for active in list(self._active.values()):
            self._tick_one(active, now_ns)
        if now_ns >= self._restamp_at_ns:
            self._restamp(now_ns)
        self.profiles.tick()
        self._report_first_refusals()
        if now_ns >= self._sweep_at_ns:
            self._sweep(now_ns)

    def _tick_one(self, active: Active, now_ns: int) -> None:
        subject = active.order.subject
        due = bool(active.retry_at_ns) and active.retry_at_ns <= now_ns
        if active.order.lifts or active.expires_boot_ns <= now_ns:
            if due or not active.retry_at_ns:
                self._end(active, active.order, "lifted" if active.order.lifts else "expired")
        elif due or self._applier.moved(subject):
            self._try(active)
        elif active.rescan and isinstance(subject, ProcessSubject):
            self._rescan(active, subject)

    def _rescan(self, active: Active, subject: ProcessSubject) -> None:
        killing = active.order.killed and not active.cut.kill_refused
        try:
            cut = self._applier.rescan(subject, kill=killing)
        except NotAppliedError as error:
            self._not_applied(active, error)
            return
        active.rescan = not cut.settled
        if not cut.settled:
            self.count("late_descendants")
        if killing:
            self._killed_again(active, cut)

    def _killed_again(self, active: Active, cut: Cut) -> None:
        """Whoever was born while others were ended is ended in a later round; told when it changes."""
        killed = max(active.cut.killed, cut.killed)
        refused = cut.kill_refused
        if cut.processes and not refused:
            active.kill_rounds += 1
            active.rescan = active.kill_rounds < MAX_KILL_ROUNDS
            if not active.rescan:
                refused = f"incomplete: {cut.processes} processes are left after {MAX_KILL_ROUNDS} rounds"
        if (killed, refused) == (active.cut.killed, active.cut.kill_refused):
            return
        self.count("killed", killed - active.cut.killed)
        active.cut = replace(active.cut, killed=killed, kill_refused=refused)
        self._report(active, "APPLIED")

    def _restamp(self, now_ns: int) -> None:
        self._restamp_at_ns = now_ns + RESTAMP_NS
        if not any(isinstance(each, ProcessSubject) for each in self._active):
            return
        try:
            self.count("late_sockets", self._applier.restamp())
        except NotAppliedError:
            self.count("restamp_failed")

    def _report_first_refusals(self) -> None:
        waiting = [
            each for each in self._active.values() if each.applied_boot_ns and not each.refusal_reported
        ]
        if not waiting:
            return
        try:
            self._count_refusals(waiting)
        except NotAppliedError:
            self.count("counters_unread")
            return
        for active in waiting:
            if active.refusals.first_ns:
                active.refusal_reported = True
                self._report(active, "FIRST_REFUSAL")

    def _count_refusals(self, wanted: list[Active]) -> None:
        found = self._applier.refusals([each.order.subject for each in wanted])
        for active in wanted:
            active.refusals = found.get(active.order.subject, active.refusals)

    def _sweep(self, now_ns: int) -> None:
        self._sweep_at_ns = now_ns + SWEEP_NS
        self._ledger.forget_expired(self._clock.wall_ns())
        try:
            self.count("swept", self._applier.sweep(list(self._active), now_ns))
        except NotAppliedError:
            self.count("sweep_failed")

    def _report(self, active: Active, outcome: Outcome, reason: str = "") -> None:
        self._reports.send(
            self._reporter.status(
                active.order,
                outcome,
                now_ns=self._clock.wall_ns(),
                reason=reason,
                cut=active.cut,
                applied_boot_ns=active.applied_boot_ns,
                refusals=active.refusals,
            )
        )
