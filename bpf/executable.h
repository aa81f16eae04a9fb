/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Fills an EXEC or PROCESS_INVENTORY event from a task: the executable's identity as
 * the kernel holds it (never the string the caller passed to execve), its user,
 * namespaces and standard streams.
 */
#ifndef NSP_EXECUTABLE_H
#define NSP_EXECUTABLE_H

#include "address.h"
#include "task.h"

#define NSP_PATH_COMPONENTS_MAX 40 /* what the verifier walks in reasonable time */
#define NSP_NAME_MAX_BYTES 256 /* NAME_MAX and its NUL */
#define NSP_EXEC_SCRATCH_BYTES 4096
#define NSP_S_IFMT 0170000
#define NSP_S_IFSOCK 0140000
#define NSP_S_IFREG 0100000
#define NSP_S_IFBLK 0060000
#define NSP_S_IFDIR 0040000
#define NSP_S_IFCHR 0020000
#define NSP_S_IFIFO 0010000

/* The tail is large enough for any masked offset plus any clamped length. */
struct nsp_exec_scratch {
	struct nsp_exec_event event;
	u8 tail[NSP_EXEC_SCRATCH_BYTES - sizeof(struct nsp_exec_event)];
	struct nsp_program_path path; /* key for program_ids; behind what leaves as an event */
};

/* One each: a task iterator can be preempted by an exec on the same CPU. */
BPF_PERCPU_ARRAY(exec_scratch, struct nsp_exec_scratch, 1);
BPF_PERCPU_ARRAY(inventory_scratch, struct nsp_exec_scratch, 1);

/* Through volatile, so that the verifier sees a fresh value in each round of a loop. */
#define fresh(member) (*(volatile typeof(member) *)&(member))

/* Copies one name behind those already there. Returns its bytes, 0 when it does not fit. */
static __always_inline u32 append_component(struct nsp_exec_scratch *scratch, u64 name)
{
	u64 used = fresh(scratch->event.path_bytes);
	long copied;

	if (used > NSP_PATH_MAX_BYTES - NSP_NAME_MAX_BYTES)
		return 0;
	used = masked_index(used, NSP_PATH_MAX_BYTES);
	copied = bpf_probe_read_kernel_str(&scratch->tail[used], NSP_NAME_MAX_BYTES, (void *)name);
	return copied > 0 ? copied : 0;
}

/*
 * Path components, leaf first, from the dentry up through the mounts to the root of
 * the mount namespace: a chroot or a symlink does not shorten or change it.
 */
static __always_inline void walk_path(struct nsp_exec_scratch *scratch, u64 file)
{
	u64 dentry = read_u64(file + NSP_OFF_file__f_path_dentry);
	u64 vfsmount = read_u64(file + NSP_OFF_file__f_path_mnt);

	fresh(scratch->event.path_bytes) = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_PATH_COMPONENTS_MAX; i++) {
		u64 parent = read_u64(dentry + NSP_OFF_dentry__d_parent);
		u64 root = read_u64(vfsmount + NSP_OFF_vfsmount__mnt_root);
		u32 bytes;

		if (dentry == root || dentry == parent) {
			u64 mount = vfsmount - NSP_OFF_mount__mnt;
			u64 above = read_u64(mount + NSP_OFF_mount__mnt_parent);

			if (dentry != root) {
				/* A memfd is a tree by itself: its name, "memfd:...", is all it has. */
				if (!i)
					fresh(scratch->event.path_bytes) = append_component(
						scratch,
						read_u64(dentry + NSP_OFF_dentry__d_name_name));
				scratch->event.path_flags |= NSP_PATH_DETACHED;
				return;
			}
			if (above == mount)
				return;
			dentry = read_u64(mount + NSP_OFF_mount__mnt_mountpoint);
			vfsmount = above + NSP_OFF_mount__mnt;
			continue;
		}
		bytes = append_component(scratch, read_u64(dentry + NSP_OFF_dentry__d_name_name));
		if (!bytes)
			break;
		fresh(scratch->event.path_bytes) += bytes;
		dentry = parent;
	}
	scratch->event.path_flags |= NSP_PATH_TRUNCATED;
	count(NSP_COUNTER_PATH_TRUNCATED);
}

static __always_inline void fill_executable(struct nsp_exec_scratch *scratch, u64 mm)
{
	struct nsp_exec_event *event = &scratch->event;
	u64 file = read_u64(mm + NSP_OFF_mm_struct__exe_file);
	u64 inode = file ? read_u64(file + NSP_OFF_file__f_inode) : 0;

	if (!inode)
		return;
	executable_of(mm, &event->inode, &event->dev);
	event->nlink = read_u32(inode + NSP_OFF_inode__i_nlink);
	event->mode = read_u16(inode + NSP_OFF_inode__i_mode);
	walk_path(scratch, file);
}

static __always_inline void fill_namespaces(struct nsp_exec_event *event, u64 task)
{
	u64 nsproxy = read_u64(task + NSP_OFF_task_struct__nsproxy);
	u64 pid = read_u64(task + NSP_OFF_task_struct__thread_pid);
	u64 upid;

	if (nsproxy) {
		event->mnt_ns = read_u32(read_u64(nsproxy + NSP_OFF_nsproxy__mnt_ns) +
					 NSP_OFF_mnt_namespace__ns_inum);
		event->net_ns = read_u32(read_u64(nsproxy + NSP_OFF_nsproxy__net_ns) +
					 NSP_OFF_net__ns_inum);
	}
	/* The namespace the process is in, which is not the one its children will be in. */
	if (!pid)
		return;
	upid = pid + NSP_OFF_pid__numbers +
	       (u64)read_u32(pid + NSP_OFF_pid__level) * NSP_UPID_BYTES;
	event->pid_ns =
		read_u32(read_u64(upid + NSP_OFF_upid__ns) + NSP_OFF_pid_namespace__ns_inum);
}

/* Remote end of the first INET stream; the others only show by their kind. */
static __always_inline u8 inet_stdio(struct nsp_exec_event *event, u64 inode)
{
	u64 socket = inode - NSP_OFF_socket_alloc__vfs_inode + NSP_OFF_socket_alloc__socket;
	u64 sk = read_u64(socket + NSP_OFF_socket__sk);
	u16 family = sk ? read_u16(sk + NSP_OFF_sock____sk_common_skc_family) : 0;
	u32 ipv4;

	if (family != NSP_AF_INET && family != NSP_AF_INET6)
		return NSP_STDIO_SOCKET;
	if (event->stdio_port)
		return NSP_STDIO_INET;
	event->stdio_port = bpf_ntohs(read_u16(sk + NSP_OFF_sock____sk_common_skc_dport));
	if (family == NSP_AF_INET) {
		ipv4 = read_u32(sk + NSP_OFF_sock____sk_common_skc_daddr);
		map_ipv4(event->stdio_address, &ipv4);
	} else {
		bpf_probe_read_kernel(event->stdio_address, 16,
				      (void *)(sk + NSP_OFF_sock____sk_common_skc_v6_daddr));
	}
	return NSP_STDIO_INET;
}

static __always_inline u8 stdio_kind(struct nsp_exec_event *event, u64 file)
{
	u64 inode = file ? read_u64(file + NSP_OFF_file__f_inode) : 0;
	u16 kind;

	if (!inode)
		return NSP_STDIO_CLOSED;
	kind = read_u16(inode + NSP_OFF_inode__i_mode) & NSP_S_IFMT;
	if (kind == NSP_S_IFSOCK)
		return inet_stdio(event, inode);
	if (kind == NSP_S_IFIFO)
		return NSP_STDIO_PIPE;
	if (kind == NSP_S_IFCHR)
		return NSP_STDIO_TERMINAL;
	if (kind == NSP_S_IFREG || kind == NSP_S_IFBLK || kind == NSP_S_IFDIR)
		return NSP_STDIO_FILE;
	return NSP_STDIO_OTHER;
}

static __always_inline void fill_stdio(struct nsp_exec_event *event, u64 task)
{
	u64 files = read_u64(task + NSP_OFF_task_struct__files);
	u64 table = files ? read_u64(files + NSP_OFF_files_struct__fdt) : 0;
	u64 array;
	u32 size;

	if (!table)
		return;
	array = read_u64(table + NSP_OFF_fdtable__fd);
	size = read_u32(table + NSP_OFF_fdtable__max_fds);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < 3; i++)
		if (i < size)
			event->stdio_kind[i] = stdio_kind(event, read_u64(array + i * sizeof(u64)));
}

/*
 * A mount namespace that belongs to the initial user namespace: one that any user may
 * make (unshare -rm) can have anything mounted over a path that a profile trusts.
 */
static __always_inline int paths_can_be_trusted(u64 task)
{
	u64 nsproxy = read_u64(task + NSP_OFF_task_struct__nsproxy);
	u64 mnt_ns = nsproxy ? read_u64(nsproxy + NSP_OFF_nsproxy__mnt_ns) : 0;
	u64 user_ns = mnt_ns ? read_u64(mnt_ns + NSP_OFF_mnt_namespace__user_ns) : 0;

	return user_ns && !read_u32(user_ns + NSP_OFF_user_namespace__level);
}

static __always_inline u32 program_id(struct nsp_exec_scratch *scratch)
{
	u32 *id = program_ids.lookup(&scratch->path);

	return id ? *id : 0;
}

/*
 * The id of the executable's path, if a profile names it. What was deleted or never had
 * a name (memfd) has no path, whatever the walk found.
 */
static __always_inline u32 program_of(struct nsp_exec_scratch *scratch, u64 task)
{
	u64 bytes = fresh(scratch->event.path_bytes);

	if (!bytes || bytes > NSP_PROGRAM_PATH_BYTES || scratch->event.path_flags ||
	    !scratch->event.nlink || !paths_can_be_trusted(task))
		return 0;
	__builtin_memset(&scratch->path, 0, sizeof(scratch->path));
	if (bpf_probe_read_kernel(scratch->path.path, clamped_length(bytes, NSP_PROGRAM_PATH_BYTES),
				  scratch->tail)) {
		count(NSP_COUNTER_READ_FAILED);
		return 0;
	}
	return program_id(scratch);
}

/*
 * The id of the script, as the caller named it, where the kernel started an interpreter
 * for it: the kernel has opened this very path. A relative one is of no profile.
 */
static __always_inline u32 script_of(struct nsp_exec_scratch *scratch, u32 program, u64 bprm)
{
	u64 filename = read_u64(bprm + NSP_OFF_linux_binprm__filename);

	if (!program || filename == read_u64(bprm + NSP_OFF_linux_binprm__interp))
		return 0;
	__builtin_memset(&scratch->path, 0, sizeof(scratch->path));
	if (bpf_probe_read_kernel_str(scratch->path.path, sizeof(scratch->path.path),
				      (void *)filename) <= 0) {
		count(NSP_COUNTER_READ_FAILED);
		return 0;
	}
	return scratch->path.path[0] == '/' ? program_id(scratch) : 0;
}

/* argv as it lies in the process; only "current" can be read, so not from an iterator. */
static __always_inline void fill_argv(struct nsp_exec_scratch *scratch, u64 mm)
{
	u64 start = read_u64(mm + NSP_OFF_mm_struct__arg_start);
	u64 total = read_u64(mm + NSP_OFF_mm_struct__arg_end) - start;
	u64 path_bytes = masked_index(fresh(scratch->event.path_bytes), NSP_PATH_MAX_BYTES);
	u64 bytes;

	if (!total)
		return;
	bytes = clamped_length(total, NSP_ARGV_MAX_BYTES);
	scratch->event.argv_total_bytes = total;
	if (bpf_probe_read_user(&scratch->tail[path_bytes], bytes, (void *)start)) {
		count(NSP_COUNTER_READ_FAILED);
		return;
	}
	scratch->event.argv_bytes = bytes;
}

/* Everything but the header and argv. */
static __always_inline void fill_process(struct nsp_exec_scratch *scratch, u64 task, u64 mm)
{
	struct nsp_exec_event *event = &scratch->event;
	struct nsp_process_key parent;
	u64 cred = read_u64(task + NSP_OFF_task_struct__cred);

	__builtin_memset(event, 0, sizeof(*event));
	process_key_of(read_u64(task + NSP_OFF_task_struct__real_parent), &parent);
	event->parent_start_ns = parent.start_ns;
	event->parent_tgid = parent.tgid;
	event->uid = read_u32(cred + NSP_OFF_cred__uid);
	event->gid = read_u32(cred + NSP_OFF_cred__gid);
	bpf_probe_read_kernel(event->comm, sizeof(event->comm),
			      (void *)(task + NSP_OFF_task_struct__comm));
	fill_namespaces(event, task);
	fill_stdio(event, task);
	if (mm)
		fill_executable(scratch, mm);
}

/* Bytes of the whole event, bounded for ringbuf_output(). */
static __always_inline u64 exec_event_bytes(const struct nsp_exec_scratch *scratch)
{
	u64 bytes = sizeof(scratch->event) + fresh(scratch->event.path_bytes) +
		    fresh(scratch->event.argv_bytes);

	return masked_index(bytes, NSP_EXEC_SCRATCH_BYTES);
}

#endif
