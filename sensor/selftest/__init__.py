# SPDX-License-Identifier: Apache-2.0
"""The sensor tests itself: a child does what must be seen and what must be refused.

:mod:`sensor.selftest.probe` is the child, :mod:`sensor.selftest.place` its cgroup and what is refused there,
:mod:`sensor.selftest.tester` starts it every few minutes and tells how it went.
"""
