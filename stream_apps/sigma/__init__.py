# SPDX-License-Identifier: Apache-2.0
"""Rules in Sigma's own format, on our events.

``loading`` reads files; pySigma parses them; ``translate`` turns a rule's condition into the tree of
``tree``, or refuses it with a reason; ``compiled`` makes closures of it; ``index`` finds for an event the few
rules that can match; ``correlation`` counts and orders matches; ``detector`` hands what matches to the
pipeline. What a rule may ask for is in ``taxonomy``; how an event gives it in ``facts``.
"""
