/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What BCC's own headers and its rewriter give a program, as plain declarations, so
 * that check.sh can compile the translation unit with every warning on. Nothing here
 * is ever linked or loaded.
 */
#ifndef NSP_BCC_SHIM_H
#define NSP_BCC_SHIM_H

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#define PAGE_SIZE 4096

#define bpf_ntohs(value) __builtin_bswap16(value)
#define bpf_htons(value) __builtin_bswap16(value)
#define bpf_ntohl(value) __builtin_bswap32(value)
#define bpf_htonl(value) __builtin_bswap32(value)

u64 bpf_get_current_cgroup_id(void);
u64 bpf_get_current_ancestor_cgroup_id(int ancestor_level);
u64 bpf_get_current_pid_tgid(void);
u64 bpf_get_current_task(void);
u32 bpf_get_smp_processor_id(void);
u64 bpf_get_socket_cookie(void *context);
u64 bpf_ktime_get_boot_ns(void);
u64 bpf_skb_cgroup_id(void *context);
long bpf_probe_read_kernel(void *to, u32 bytes, const void *from);
long bpf_probe_read_kernel_str(void *to, u32 bytes, const void *from);
long bpf_probe_read_user(void *to, u32 bytes, const void *from);
struct bpf_sock *bpf_sk_fullsock(struct bpf_sock *sk);
struct bpf_tcp_sock *bpf_tcp_sock(struct bpf_sock *sk);
u32 bpf_get_prandom_u32(void);
long bpf_skb_load_bytes(const void *skb, u32 offset, void *to, u32 bytes);
void *bpf_map_lookup_elem(void *map, const void *key);
struct file;
struct socket;
struct socket *bpf_sock_from_file(struct file *file);
long bpf_seq_write(void *seq, const void *data, u32 bytes);

#define BPF_F_TABLE(type, key_type, value_type, name, entries, map_flags) \
	struct name##_table {                                             \
		value_type *(*lookup)(key_type *);                        \
		int (*update)(key_type *, value_type *);                  \
		int (*insert)(key_type *, value_type *);                  \
		int (*delete)(key_type *);                                \
		void (*call)(void *, int);                                \
		void *(*sk_storage_get)(void *, void *, int);             \
		long (*sk_storage_delete)(void *);                        \
	};                                                                \
	extern struct name##_table name;                                  \
	_Static_assert((entries) >= 0 && (map_flags) >= 0 && sizeof(type), "map " #name)

#define BPF_TABLE(type, key_type, value_type, name, entries) \
	BPF_F_TABLE(type, key_type, value_type, name, entries, 0)
#define BPF_HASH(name, key_type, value_type, entries) \
	BPF_F_TABLE("hash", key_type, value_type, name, entries, 0)
#define BPF_ARRAY(name, value_type, entries) BPF_F_TABLE("array", int, value_type, name, entries, 0)
#define BPF_PERCPU_ARRAY(name, value_type, entries) \
	BPF_F_TABLE("percpu_array", int, value_type, name, entries, 0)
/* An entry is a map again: bpf_map_lookup_elem() looks into it. */
#define BPF_ARRAY_OF_MAPS(name, shape, entries) \
	BPF_F_TABLE("array_of_maps", int, void, name, entries, 0)
#define BPF_PROG_ARRAY(name, entries) BPF_F_TABLE("prog", u32, u32, name, entries, 0)

#define BPF_RINGBUF_OUTPUT(name, pages)                  \
	struct name##_table {                            \
		int (*ringbuf_output)(void *, u64, u64); \
		void *(*ringbuf_reserve)(u64);           \
		void (*ringbuf_discard)(void *, u64);    \
		void (*ringbuf_submit)(void *, u64);     \
	};                                               \
	extern struct name##_table name;                 \
	_Static_assert((pages) > 0, "ring " #name)

#endif
