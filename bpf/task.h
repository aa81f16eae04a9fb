/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Reading kernel structs. Pointers into the kernel are kept as u64 and read by
 * offset (offsets.h): BCC would rewrite a dereference of a typed pointer, and no
 * kernel header is there to type it.
 */
#ifndef NSP_TASK_H
#define NSP_TASK_H

#include "bounds.h"
#include "emit.h"
#include "offsets.h"

#define NSP_EEXIST 17
#define NSP_UPID_BYTES 16 /* struct upid: an int and a pointer */

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	if (bpf_probe_read_kernel(&value, sizeof(value), (void *)address))
		count(NSP_COUNTER_READ_FAILED);
	return value;
}

static __always_inline u32 read_u32(u64 address)
{
	u32 value = 0;

	if (bpf_probe_read_kernel(&value, sizeof(value), (void *)address))
		count(NSP_COUNTER_READ_FAILED);
	return value;
}

static __always_inline u16 read_u16(u64 address)
{
	u16 value = 0;

	if (bpf_probe_read_kernel(&value, sizeof(value), (void *)address))
		count(NSP_COUNTER_READ_FAILED);
	return value;
}

/* A process starts when its leader did, whichever of its threads is asked. */
static __always_inline void process_key_of(u64 task, struct nsp_process_key *key)
{
	u64 leader = read_u64(task + NSP_OFF_task_struct__group_leader);

	key->start_ns = read_u64(leader + NSP_OFF_task_struct__start_boottime);
	key->tgid = read_u32(task + NSP_OFF_task_struct__tgid);
	key->pad = 0;
}

static __always_inline int same_process(const struct nsp_process_key *a,
					const struct nsp_process_key *b)
{
	return a->tgid == b->tgid && a->start_ns == b->start_ns;
}

static __always_inline u64 cgroup_id_of(u64 cgroup)
{
	return read_u64(read_u64(cgroup + NSP_OFF_cgroup__kn) + NSP_OFF_kernfs_node__id);
}

/* The id of the task's cgroup in the v2 hierarchy. */
static __always_inline u64 task_cgroup_id(u64 task)
{
	u64 css_set = read_u64(task + NSP_OFF_task_struct__cgroups);

	return cgroup_id_of(read_u64(css_set + NSP_OFF_css_set__dfl_cgrp));
}

/* All threads have exited or are past the point of no return. */
static __always_inline int task_group_is_dead(u64 task)
{
	u64 signal = read_u64(task + NSP_OFF_task_struct__signal);

	return !signal || !read_u32(signal + NSP_OFF_signal_struct__live);
}

/* The inode and device of the executable; zero for a kernel thread. */
static __always_inline void executable_of(u64 mm, u64 *inode, u32 *dev)
{
	u64 file = mm ? read_u64(mm + NSP_OFF_mm_struct__exe_file) : 0;
	u64 node = file ? read_u64(file + NSP_OFF_file__f_inode) : 0;

	*inode = 0;
	*dev = 0;
	if (!node)
		return;
	*inode = read_u64(node + NSP_OFF_inode__i_ino);
	*dev = read_u32(read_u64(node + NSP_OFF_inode__i_sb) + NSP_OFF_super_block__s_dev);
}

/* Ancestors by following live parents, for a process the maps did not know. */
static __always_inline void ancestors_of(u64 task, struct nsp_process_key *ancestors)
{
	struct nsp_process_key key;

#pragma clang loop unroll(full)
	for (int i = 0; i < NSP_ANCESTORS; i++) {
		task = read_u64(task + NSP_OFF_task_struct__real_parent);
		if (!task)
			return;
		process_key_of(task, &key);
		if (!key.tgid) /* the idle task, parent of init and kthreadd */
			return;
		ancestors[i] = key;
		task = read_u64(task + NSP_OFF_task_struct__group_leader);
	}
}

/* A whole entry from the task alone. Nothing is inherited: the parent may be unknown too. */
static __always_inline void process_from_task(u64 task, struct nsp_process *process)
{
	struct nsp_process_key key;

	__builtin_memset(process, 0, sizeof(*process));
	process_key_of(task, &key);
	process->start_ns = key.start_ns;
	executable_of(read_u64(task + NSP_OFF_task_struct__mm), &process->inode, &process->dev);
	ancestors_of(task, process->ancestors);
}

/*
 * The entry of a process, or NULL. An entry under the same tgid with another start is
 * of an earlier process whose exit was not seen.
 */
static __always_inline struct nsp_process *find_process(const struct nsp_process_key *key)
{
	u32 tgid = key->tgid;
	struct nsp_process *process = processes.lookup(&tgid);

	if (process && process->start_ns != key->start_ns)
		return 0;
	return process;
}

/* Enters a process the maps do not know, unless another program was faster. */
static __always_inline void insert_process(u64 task, const struct nsp_process_key *key,
					   const struct nsp_process_key *quarantine_root)
{
	struct nsp_process fresh;
	u32 tgid = key->tgid;
	long error;

	if (processes.lookup(&tgid)) /* of an earlier process: its start differs */
		processes.delete(&tgid);
	process_from_task(task, &fresh);
	fresh.quarantine_root = *quarantine_root;
	error = processes.insert(&tgid, &fresh);
	if (error && error != -NSP_EEXIST)
		count(NSP_COUNTER_PROCESS_MAP_FULL);
}

/*
 * As find_process(), but enters a process that is missing, with its parent's
 * quarantine. NULL: the map is full.
 */
static __always_inline struct nsp_process *know_process(u64 task, const struct nsp_process_key *key)
{
	struct nsp_process *process = find_process(key);
	struct nsp_process_key root = {};
	struct nsp_process_key parent_key;
	struct nsp_process *parent;

	if (process)
		return process;
	count(NSP_COUNTER_PROCESS_UNKNOWN);
	process_key_of(read_u64(task + NSP_OFF_task_struct__real_parent), &parent_key);
	parent = find_process(&parent_key);
	if (parent)
		root = parent->quarantine_root;
	insert_process(task, key, &root);
	return find_process(key);
}

#endif
