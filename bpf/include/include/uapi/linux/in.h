/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The protocol numbers the programs name; IANA's. */
#ifndef NSP_STUB_IN_H
#define NSP_STUB_IN_H
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262 /* Linux's own: beyond a byte on purpose */
#endif
