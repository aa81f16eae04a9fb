/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The one translation unit. BCC rewrites map calls only in the file it is given, not
 * in what that file includes, so the loader (sensor/kernel/loader.py) and check.sh
 * expand every #include "..." below in place, once each; <...> stay as they are.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#include "offsets.h"
#include "events.h"
#include "state.h"
#include "maps.h"
#include "emit.h"
#include "packet.h"
#include "task.h"
#include "policy.h"
#include "process.c"
#include "cgroup.c"
#include "socket.c"
#include "tcp.c"
#include "packet.c"
#include "dns.c"
#include "dns_owners.c"
#include "dns_learn.c"
#include "l7.c"
#include "http.c"
#include "tls.c"
#include "inventory.c"
#include "arp.c"
#include "link.c"
