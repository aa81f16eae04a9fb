/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* For check.sh: the system's linux/bpf.h in the place of the copy BCC brings, and the shim. */
#ifndef NSP_CHECK_BPF_H
#define NSP_CHECK_BPF_H
#include <linux/types.h>
#include <linux/bpf.h>
#include "bcc_shim.h"
#endif
