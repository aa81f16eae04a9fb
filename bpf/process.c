/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The life of processes: fork, exec, exit. Keeps `processes`, from which every other
 * program takes owner and quarantine, and reports each step. Threads are not
 * processes: only thread group leaders count.
 */
#include "executable.h"
#include "policy.h"

static __always_inline void inherit(struct nsp_process *child, const struct nsp_process *parent,
				    const struct nsp_process_key *parent_key)
{
	child->inode = parent->inode;
	child->dev = parent->dev;
	child->program = parent->program;
	child->script = parent->script;
	child->quarantine_root = parent->quarantine_root;
	child->ancestors[0] = *parent_key;
	__builtin_memcpy(&child->ancestors[1], &parent->ancestors[0],
			 sizeof(child->ancestors) - sizeof(child->ancestors[0]));
}

/*
 * Who is born below a quarantined process whose mark has not come down this far yet:
 * user space marks the living one by one, and a chain of short lives would outrun it.
 */
static __always_inline void inherit_quarantine(struct nsp_process *child)
{
	struct nsp_process_key ancestor;

	if (!something_is_enforced() || quarantine_of(&child->quarantine_root))
		return;
#pragma clang loop unroll(full)
	for (int i = 0; i < NSP_ANCESTORS; i++) {
		ancestor = child->ancestors[i];
		if (quarantine_of(&ancestor)) {
			child->quarantine_root = ancestor;
			return;
		}
	}
}

static __always_inline void emit_fork(u64 child, const struct nsp_process_key *key,
				      const struct nsp_process_key *parent_key)
{
	struct nsp_fork_event *event = events.ringbuf_reserve(sizeof(struct nsp_fork_event));

	if (!event) {
		event_lost(NSP_COUNTER_RING_FULL);
		return;
	}
	event_header(&event->header, NSP_EVENT_FORK, sizeof(*event), key, task_cgroup_id(child),
		     key->tgid);
	event->parent_start_ns = parent_key->start_ns;
	event->parent_tgid = parent_key->tgid;
	event->uid = read_u32(read_u64(child + NSP_OFF_task_struct__cred) + NSP_OFF_cred__uid);
	__builtin_memset(event->comm, 0, sizeof(event->comm));
	bpf_probe_read_kernel(event->comm, sizeof(event->comm),
			      (void *)(child + NSP_OFF_task_struct__comm));
	events.ringbuf_submit(event, NSP_RING_FLAGS);
}

/*
 * sched_process_fork(parent, child). The entry exists before the child first runs. The
 * parent is who called clone, not child->real_parent: with CLONE_PARENT that is the
 * caller's own parent, and a quarantined process could give birth outside of its tree.
 */
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 parent = ctx->args[0];
	u64 child = ctx->args[1];
	struct nsp_process_key key, parent_key;
	struct nsp_process entry = {};
	struct nsp_process *parent_entry;
	u32 tgid = read_u32(child + NSP_OFF_task_struct__tgid);

	if (tgid != read_u32(child + NSP_OFF_task_struct__pid))
		return 0;
	process_key_of(child, &key);
	process_key_of(parent, &parent_key);
	entry.start_ns = key.start_ns;
	parent_entry = know_process(parent, &parent_key);
	if (parent_entry) {
		inherit(&entry, parent_entry, &parent_key);
		inherit_quarantine(&entry);
	}
	if (processes.update(&tgid, &entry))
		count(NSP_COUNTER_PROCESS_MAP_FULL);
	emit_fork(child, &key, &parent_key);
	return 0;
}

/* sched_process_exec(task, old pid, bprm): the new image is in place, argv is on its stack. */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u64 mm = read_u64(task + NSP_OFF_task_struct__mm);
	struct nsp_process_key key;
	struct nsp_process *process;
	struct nsp_exec_scratch *scratch;
	u64 bytes;
	int zero = 0;

	process_key_of(task, &key);
	process = know_process(task, &key);
	if (process)
		executable_of(mm, &process->inode, &process->dev);
	scratch = exec_scratch.lookup(&zero);
	if (!scratch) {
		event_lost(NSP_COUNTER_SCRATCH_MISSING);
		return 0;
	}
	fill_process(scratch, task, mm);
	if (process) {
		process->program = program_of(scratch, task);
		process->script = script_of(scratch, process->program, ctx->args[2]);
	}
	fill_argv(scratch, mm);
	bytes = exec_event_bytes(scratch);
	event_header(&scratch->event.header, NSP_EVENT_EXEC, bytes, &key, task_cgroup_id(task),
		     read_u32(task + NSP_OFF_task_struct__pid));
	if (events.ringbuf_output(scratch, bytes, NSP_RING_FLAGS_EXEC))
		count(NSP_COUNTER_RING_FULL);
	return 0;
}

/* sched_process_exit(task): once a thread; the process ends with the last one. */
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	struct nsp_exit_event *event;
	struct nsp_process_key key, parent_key;
	struct nsp_process *process;
	u32 tgid;

	if (!task_group_is_dead(task))
		return 0;
	process_key_of(task, &key);
	tgid = key.tgid;
	process = find_process(&key);
	if (!process)
		return 0;
	/* Before it goes: a scan for descendants must find the one entry or the other. */
	parent_key = process->ancestors[0];
	if (parent_key.tgid && departed.update(&key, &parent_key))
		count(NSP_COUNTER_PROCESS_MAP_FULL);
	/* The last two threads may both see the count at zero: whoever deletes, reports. */
	if (processes.delete(&tgid))
		return 0;
	event = events.ringbuf_reserve(sizeof(struct nsp_exit_event));
	if (!event) {
		event_lost(NSP_COUNTER_RING_FULL);
		return 0;
	}
	event_header(&event->header, NSP_EVENT_EXIT, sizeof(*event), &key, task_cgroup_id(task),
		     read_u32(task + NSP_OFF_task_struct__pid));
	event->exit_code = read_u32(task + NSP_OFF_task_struct__exit_code);
	event->pad = 0;
	events.ringbuf_submit(event, NSP_RING_FLAGS);
	return 0;
}
