/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * BCC stamps a program with this number, which only kprobes of old kernels compare;
 * the programs here are loaded by our own loader, which ignores it.
 */
#ifndef NSP_STUB_VERSION_H
#define NSP_STUB_VERSION_H
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
#endif
