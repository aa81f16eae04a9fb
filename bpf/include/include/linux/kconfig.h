/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * BCC includes this file first, as it does a real kernel's. The two things it wants
 * of a kernel configuration are stated here; nothing of the running kernel is assumed.
 */
#ifndef NSP_STUB_KCONFIG_H
#define NSP_STUB_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#endif
