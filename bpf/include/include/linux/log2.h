/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* BCC includes it and defines its own log2: nothing is needed. */
