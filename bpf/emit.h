/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Counting, sequence numbers and the event header: what every program that writes
 * to the ring shares. An attempt takes a sequence number whether or not it reaches
 * the ring, so that "seen + counted lost = attempted" can be proved per CPU.
 */
#ifndef NSP_EMIT_H
#define NSP_EMIT_H

#include "maps.h"

/* The sensor polls for these: a wake-up per event costs the workload about 10 us (measured). */
#define NSP_RING_FLAGS BPF_RB_NO_WAKEUP

/*
 * Except for an exec, which is rare, costs a hundred times that anyway, and is how what
 * must be stopped begins: the sensor can sleep long and still be there at once.
 */
#define NSP_RING_FLAGS_EXEC BPF_RB_FORCE_WAKEUP

static __always_inline void count(u32 counter)
{
	int index = counter;
	u64 *value = counters.lookup(&index);

	/* Atomic although per CPU: a softirq may run a program in the middle of another. */
	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline u64 next_sequence(void)
{
	int index = 0;
	u64 *value = sequence.lookup(&index);

	return value ? __sync_fetch_and_add(value, 1) : 0;
}

/* An event that could not even be begun: it still takes its number, so the gap shows. */
static __always_inline void event_lost(u32 counter)
{
	next_sequence();
	count(counter);
}

/* Fills the whole header; call it once for an event and then submit or output it. */
static __always_inline void event_header(struct nsp_event_header *header, u16 type, u16 size,
					 const struct nsp_process_key *owner, u64 cgroup_id,
					 u32 tid)
{
	header->ktime_ns = bpf_ktime_get_boot_ns();
	header->start_ns = owner->start_ns;
	header->cgroup_id = cgroup_id;
	header->seq = next_sequence();
	header->tgid = owner->tgid;
	header->tid = tid;
	header->type = type;
	header->size = size;
	header->cpu = bpf_get_smp_processor_id();
	header->flags = 0;
}

#endif
