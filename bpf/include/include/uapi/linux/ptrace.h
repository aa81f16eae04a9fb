/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* BCC includes it ahead of a program that has kprobes; we have none. */
