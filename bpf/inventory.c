/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What was there before the sensor, by iterators: every process, and the owner of every
 * open INET socket; and, when a quarantine begins, the stamp on the open sockets that
 * only the quarantined may still use. Read the iterator's fd to run one pass. The
 * inventory writes one byte there for each event, so that who reads n bytes gets n
 * events at most and can make room in the ring before the next.
 */
#include "executable.h"
#include "flow.h"

#define NSP_TCP_STATE_ESTABLISHED 1
#define NSP_TCP_STATE_LISTEN 10

/* As the kernel hands them to bpf_iter_task and bpf_iter_task_file. */
struct nsp_iter_task {
	u64 meta;
	u64 task;
};

struct nsp_iter_task_file {
	u64 meta;
	u64 task;
	u32 fd;
	u32 pad;
	u64 file;
};

/*
 * One byte for the reader. If it did not fit, the kernel would run the program for the
 * same object again; readers ask for less than the kernel's buffer (32 KB).
 */
static __always_inline void tell_reader(const u64 *ctx)
{
	char byte = 0;
	void *meta, *seq;

	/* Plain loads, so that the verifier knows what they are. seq is meta's first member. */
	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(meta) : "r"(ctx));
	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(seq) : "r"(meta));
	bpf_seq_write(seq, &byte, sizeof(byte));
}

/* Enters a process that is missing; never over an entry that fork or exec made. */
static __always_inline void inventory_process(u64 task, const struct nsp_process_key *key)
{
	struct nsp_process_key not_quarantined = {};
	u32 tgid = key->tgid;

	if (find_process(key))
		return;
	insert_process(task, key, &not_quarantined);
	/* If it exited in between, on_exit has run and nobody else would remove it. */
	if (task_group_is_dead(task))
		processes.delete(&tgid);
}

int inventory_tasks(struct nsp_iter_task *ctx)
{
	u64 task = ctx->task;
	struct nsp_exec_scratch *scratch;
	struct nsp_process_key key;
	u64 bytes;
	int zero = 0;

	if (!task || task_group_is_dead(task))
		return 0;
	process_key_of(task, &key);
	if (key.tgid != read_u32(task + NSP_OFF_task_struct__pid))
		return 0;
	inventory_process(task, &key);
	scratch = inventory_scratch.lookup(&zero);
	if (!scratch) {
		event_lost(NSP_COUNTER_SCRATCH_MISSING);
		return 0;
	}
	fill_process(scratch, task, read_u64(task + NSP_OFF_task_struct__mm));
	bytes = exec_event_bytes(scratch);
	event_header(&scratch->event.header, NSP_EVENT_PROCESS_INVENTORY, bytes, &key,
		     task_cgroup_id(task), key.tgid);
	scratch->event.header.flags = NSP_EVENT_FLAG_INVENTORY;
	if (events.ringbuf_output(scratch, bytes, NSP_RING_FLAGS))
		count(NSP_COUNTER_RING_FULL);
	tell_reader(&ctx->meta);
	return 0;
}

/*
 * Gives every running process the id of its program, after a profile has named a new
 * one. The script of a running interpreter is not known any more.
 */
int identify_programs(struct nsp_iter_task *ctx)
{
	u64 task = ctx->task;
	struct nsp_exec_scratch *scratch;
	struct nsp_process *process;
	struct nsp_process_key key;
	int zero = 0;

	if (!task || task_group_is_dead(task))
		return 0;
	process_key_of(task, &key);
	if (key.tgid != read_u32(task + NSP_OFF_task_struct__pid))
		return 0;
	process = find_process(&key);
	scratch = inventory_scratch.lookup(&zero);
	if (!process || !scratch)
		return 0;
	fill_process(scratch, task, read_u64(task + NSP_OFF_task_struct__mm));
	process->program = program_of(scratch, task);
	return 0;
}

/* The file's struct sock, typed as the verifier wants it, or NULL. */
static __always_inline void *sock_of(u64 file)
{
	struct socket *socket;
	void *sk;

	if (!file)
		return 0;
	socket = bpf_sock_from_file((struct file *)file);
	if (!socket)
		return 0;
	/* A plain load, so that the result stays a pointer sk_storage_get() accepts. */
	asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(sk) : "r"(socket), "i"(NSP_OFF_socket__sk));
	return sk;
}

/*
 * A test of its own, for LLVM to keep beside the pointer: folded into it as "pointer or
 * NULL", a 6.1 verifier no longer knows that the pointer is one.
 */
static __always_inline int is_inet(void *sk)
{
	u16 family = read_u16((u64)sk + NSP_OFF_sock____sk_common_skc_family);

	return opaque(family == NSP_AF_INET || family == NSP_AF_INET6);
}

/* Packet sockets pass the socket hooks: for these walks only, the programs on interfaces ask. */
static __always_inline int is_followed(void *sk, u64 *create)
{
	u16 family = read_u16((u64)sk + NSP_OFF_sock____sk_common_skc_family);
	int is_packet = family == NSP_AF_PACKET || family == NSP_AF_XDP;

	*create = opaque(is_packet ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	return opaque(is_packet || family == NSP_AF_INET || family == NSP_AF_INET6);
}

static __always_inline void emit_socket_inventory(struct nsp_iter_task_file *ctx, void *sk,
						  const struct nsp_process_key *owner,
						  u64 cgroup_id, u8 state)
{
	struct nsp_flow_event flow = {};

	flow_from_sock(&flow, (u64)sk);
	if (flow.protocol == IPPROTO_TCP) {
		if (state != NSP_TCP_STATE_ESTABLISHED && state != NSP_TCP_STATE_LISTEN)
			return;
		flow.tcp_state = state;
	} else if (flow.protocol != IPPROTO_UDP) {
		return;
	}
	/* Who opened an established flow is not recorded anywhere: said to be outgoing. */
	flow.direction = state == NSP_TCP_STATE_LISTEN ? NSP_DIRECTION_IN : NSP_DIRECTION_OUT;
	flow.cookie = bpf_get_socket_cookie(sk);
	event_header(&flow.header, NSP_EVENT_SOCKET_INVENTORY, sizeof(flow), owner, cgroup_id, 0);
	flow.header.flags = NSP_EVENT_FLAG_INVENTORY;
	if (events.ringbuf_output(&flow, sizeof(flow), NSP_RING_FLAGS))
		count(NSP_COUNTER_RING_FULL);
	tell_reader(&ctx->meta);
}

/*
 * Whether a holder of a listening socket is who serves: its owner, or anybody once that
 * has exited. Not each holder: a child may have inherited it without knowing.
 */
static __always_inline int listens_for(const struct nsp_process_key *holder,
				       const struct nsp_process_key *owner)
{
	if (holder->tgid == owner->tgid && holder->start_ns == owner->start_ns)
		return 1;
	return !find_process(owner);
}

/* Sockets several processes hold go to the first in the walk: the lowest tgid. */
int inventory_sockets(struct nsp_iter_task_file *ctx)
{
	u64 task = ctx->task;
	void *sk = sock_of(ctx->file);
	struct nsp_governed governed = {};
	struct nsp_process *process;
	struct nsp_process_key key;
	struct nsp_socket *socket;
	u8 state;

	if (!task || !sk || !is_inet(sk))
		return 0;
	socket = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket) {
		count(NSP_COUNTER_SOCKET_STORAGE);
		return 0;
	}
	state = read_u32((u64)sk + NSP_OFF_sock____sk_common_skc_state);
	process_key_of(task, &key);
	if (socket->flags & NSP_SOCKET_OWNED) {
		/* Known since before: only a sensor that takes over has yet to learn who serves. */
		if (state == NSP_TCP_STATE_LISTEN && listens_for(&key, &socket->owner))
			emit_socket_inventory(ctx, sk, &key, socket->cgroup_id, state);
		return 0;
	}
	socket->owner = key;
	socket->cgroup_id = task_cgroup_id(task);
	workload_of_cgroup(socket->cgroup_id, &governed);
	socket->workload_cgroup_id = governed.workload_cgroup_id;
	socket->policy_slot = governed.slot;
	process = find_process(&key);
	if (process) {
		socket->program = process->program;
		socket->script = process->script;
	}
	socket->flags |= NSP_SOCKET_OWNED;
	if (state == NSP_TCP_STATE_LISTEN)
		socket->flags |= NSP_SOCKET_LISTENER;
	emit_socket_inventory(ctx, sk, &socket->owner, socket->cgroup_id, state);
	return 0;
}

static __always_inline int is_quarantined(const struct nsp_process_key *key,
					  struct nsp_process_key *root)
{
	struct nsp_process *process = find_process(key);

	if (!process)
		return 0;
	*root = process->quarantine_root;
	return quarantine_of(root) != 0;
}

/*
 * A datagram socket without a peer goes to the holder who is not quarantined: one packet
 * sent by a child made the child its owner, and each further one passes sendmsg anyway.
 */
static __always_inline void return_to_holder(void *sk, struct nsp_socket *socket,
					     const struct nsp_process_key *holder)
{
	struct nsp_process_key none = {};
	struct nsp_process_key root;

	if (read_u16((u64)sk + NSP_OFF_sock__sk_protocol) != IPPROTO_UDP ||
	    read_u16((u64)sk + NSP_OFF_sock____sk_common_skc_dport))
		return;
	if (!is_quarantined(&socket->owner, &root) && !quarantine_of(&socket->owner))
		return;
	socket->owner = *holder;
	socket->quarantine_root = none;
}

/*
 * First of the two passes: notes each socket that somebody who is not quarantined
 * holds. A service's listening socket, which its quarantined child inherited, is one,
 * whoever opened it: a daemon's opener is often gone. The pass counts when it ends.
 */
int survey_sockets(struct nsp_iter_task_file *ctx)
{
	u64 task = ctx->task;
	void *sk = sock_of(ctx->file);
	int index = NSP_SETTING_SOCKETS_SURVEYED;
	struct nsp_process_key key, root;
	struct nsp_socket *socket;
	u64 *finished = settings.lookup(&index);
	u64 create = 0;

	if (!finished)
		return 0;
	if (!task) { /* called once more after the last file */
		*finished += 1;
		return 0;
	}
	if (!sk || !is_followed(sk, &create))
		return 0;
	process_key_of(task, &key);
	if (is_quarantined(&key, &root))
		return 0;
	socket = sockets.sk_storage_get(sk, 0, create);
	if (!socket)
		return 0;
	socket->survey = *finished + 1;
	if (!create)
		return_to_holder(sk, socket, &key);
	return 0;
}

/*
 * Second pass: stamps what the quarantined hold and nobody else does. A socket without
 * storage is older than the sensor and was in nobody's hands at the inventory.
 */
int mark_sockets(struct nsp_iter_task_file *ctx)
{
	u64 task = ctx->task;
	void *sk = sock_of(ctx->file);
	int marked_index = NSP_SETTING_SOCKETS_MARKED;
	int survey_index = NSP_SETTING_SOCKETS_SURVEYED;
	struct nsp_process_key key, root;
	struct nsp_socket *socket;
	u64 *survey = settings.lookup(&survey_index);
	u64 *marked = settings.lookup(&marked_index);
	u64 create = 0;

	if (!task || !sk || !survey || !marked || !is_followed(sk, &create))
		return 0;
	process_key_of(task, &key);
	if (!is_quarantined(&key, &root))
		return 0;
	socket = sockets.sk_storage_get(sk, 0, create);
	if (!socket || socket->survey == (u32)*survey ||
	    same_process(&socket->quarantine_root, &root))
		return 0;
	if (!(socket->flags & NSP_SOCKET_OWNED)) {
		socket->owner = key;
		socket->cgroup_id = task_cgroup_id(task);
		socket->flags |= NSP_SOCKET_OWNED;
	}
	socket->quarantine_root = root;
	__sync_fetch_and_add(marked, 1);
	return 0;
}
