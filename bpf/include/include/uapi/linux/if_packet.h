/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* BCC includes it for its own packet protocols: nothing is needed. */
