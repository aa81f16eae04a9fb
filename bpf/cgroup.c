/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * cgroups of the v2 hierarchy: a new one inherits its parent's workload before any
 * process can be in it. The kernel calls these tracepoints with a spin lock held
 * (trace_cgroup_path_lock), so one scratch buffer a CPU is never shared.
 */
#include "task.h"

/* Room for the largest masked length behind the fixed part. */
struct nsp_cgroup_scratch {
	struct nsp_cgroup_event event;
	u8 tail[NSP_CGROUP_PATH_MAX_BYTES];
	struct nsp_cgroup_name name;
};

BPF_PERCPU_ARRAY(cgroup_scratch, struct nsp_cgroup_scratch, 1);

static __always_inline u32 hierarchy_of(u64 cgroup)
{
	return read_u32(read_u64(cgroup + NSP_OFF_cgroup__root) +
			NSP_OFF_cgroup_root__hierarchy_id);
}

/* 0 for the root of the hierarchy. */
static __always_inline u64 parent_cgroup_id_of(u64 cgroup)
{
	u64 css = read_u64(cgroup + NSP_OFF_cgroup__self_parent);

	return css ? cgroup_id_of(css - NSP_OFF_cgroup__self) : 0;
}

static __always_inline void emit_cgroup(u16 type, u64 cgroup, u64 path,
					const struct nsp_process_key *moved, u32 tid)
{
	struct nsp_cgroup_scratch *scratch;
	u64 bytes;
	long copied;
	int zero = 0;

	scratch = cgroup_scratch.lookup(&zero);
	if (!scratch) {
		event_lost(NSP_COUNTER_SCRATCH_MISSING);
		return;
	}
	__builtin_memset(&scratch->event, 0, sizeof(scratch->event));
	scratch->event.parent_cgroup_id = parent_cgroup_id_of(cgroup);
	scratch->event.level = read_u32(cgroup + NSP_OFF_cgroup__level);
	copied = bpf_probe_read_kernel_str(scratch->tail, sizeof(scratch->tail), (void *)path);
	if (copied <= 0)
		count(NSP_COUNTER_READ_FAILED);
	bytes = copied > 0 ? masked_index(copied - 1, NSP_CGROUP_PATH_MAX_BYTES) : 0;
	scratch->event.path_bytes = bytes;
	bytes += sizeof(scratch->event);
	event_header(&scratch->event.header, type, bytes, moved, cgroup_id_of(cgroup), tid);
	if (events.ringbuf_output(scratch, bytes, NSP_RING_FLAGS))
		count(NSP_COUNTER_RING_FULL);
}

/* The slot that waits for a cgroup of this name, or 0. */
static __always_inline u32 expected_slot(u64 cgroup)
{
	struct nsp_cgroup_scratch *scratch;
	u64 name = read_u64(read_u64(cgroup + NSP_OFF_cgroup__kn) + NSP_OFF_kernfs_node__name);
	u32 *slot;
	int zero = 0;

	scratch = cgroup_scratch.lookup(&zero);
	if (!scratch || !name)
		return 0;
	__builtin_memset(&scratch->name, 0, sizeof(scratch->name));
	if (bpf_probe_read_kernel_str(scratch->name.name, sizeof(scratch->name.name),
				      (void *)name) <= 0) {
		count(NSP_COUNTER_READ_FAILED);
		return 0;
	}
	slot = expected_workloads.lookup(&scratch->name);
	return slot ? *slot : 0;
}

/*
 * A workload's cgroups are the workload; a cgroup outside of all of them may be one that
 * is expected. Inside, a name proves nothing: a container may make cgroups too.
 */
static __always_inline void enter_cgroup(u64 cgroup)
{
	struct nsp_workload entry = {};
	struct nsp_workload *parent;
	u64 cgroup_id = cgroup_id_of(cgroup);
	u64 parent_id = parent_cgroup_id_of(cgroup);
	u64 yes = 1;
	int full = NSP_SETTING_WORKLOADS_FULL;
	u32 slot;

	parent = workloads.lookup(&parent_id);
	if (parent)
		entry = *parent;
	if (!entry.workload_cgroup_id) {
		slot = expected_slot(cgroup);
		if (slot)
			entry.policy_slot = slot;
		/* What is unknown is no workload yet: workloads are made below it. */
		if (slot > NSP_SLOT_UNKNOWN)
			entry.workload_cgroup_id = cgroup_id;
	}
	if (!entry.workload_cgroup_id && !entry.policy_slot)
		return;
	if (workloads.update(&cgroup_id, &entry)) {
		count(NSP_COUNTER_WORKLOAD_MAP_FULL);
		settings.update(&full, &yes);
	}
}

/* cgroup_mkdir(cgroup, path) */
int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	u64 cgroup = ctx->args[0];
	struct nsp_process_key nobody = {};

	if (hierarchy_of(cgroup))
		return 0;
	enter_cgroup(cgroup);
	emit_cgroup(NSP_EVENT_CGROUP_MKDIR, cgroup, ctx->args[1], &nobody, 0);
	return 0;
}

/* cgroup_rmdir(cgroup, path) */
int on_cgroup_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	u64 cgroup = ctx->args[0];
	struct nsp_process_key nobody = {};
	u64 cgroup_id;

	if (hierarchy_of(cgroup))
		return 0;
	cgroup_id = cgroup_id_of(cgroup);
	workloads.delete(&cgroup_id);
	emit_cgroup(NSP_EVENT_CGROUP_RMDIR, cgroup, ctx->args[1], &nobody, 0);
	return 0;
}

/* cgroup_attach_task(cgroup, path, task, threadgroup) */
int on_cgroup_attach(struct bpf_raw_tracepoint_args *ctx)
{
	u64 cgroup = ctx->args[0];
	u64 task = ctx->args[2];
	struct nsp_process_key key;
	u32 tid = read_u32(task + NSP_OFF_task_struct__pid);

	if (tid != read_u32(task + NSP_OFF_task_struct__tgid) || hierarchy_of(cgroup))
		return 0;
	process_key_of(task, &key);
	emit_cgroup(NSP_EVENT_CGROUP_ATTACH, cgroup, ctx->args[1], &key, tid);
	return 0;
}
