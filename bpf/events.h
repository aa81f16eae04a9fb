/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The contract between the kernel programs and user space.
 *
 * Every event on the ring starts with struct nsp_event_header. Layouts are flat,
 * fixed-width, largest field first, explicitly padded and zeroed before use; the
 * decoder's offsets (sensor/publish/layout.py) are compared with this file by
 * tests/kernel/test_layout.py, so a change here is one commit with the decoder.
 *
 * Clocks: every *_ns in this file is CLOCK_BOOTTIME (bpf_ktime_get_boot_ns and
 * task_struct.start_boottime), so that an event time and a process start compare.
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports are in
 * host order.
 */
#ifndef NSP_EVENTS_H
#define NSP_EVENTS_H

/* Part of the pin path: a sensor adopts pinned maps only of its own version. */
#define NSP_LAYOUT_VERSION 2

/* Sizes of the variable tails. All are powers of two: the verifier follows a mask. */
#define NSP_PATH_MAX_BYTES 1024
#define NSP_ARGV_MAX_BYTES 1024
#define NSP_DNS_MESSAGE_MAX_BYTES 2048
#define NSP_DNS_MAX_RECORDS 32
#define NSP_CGROUP_PATH_MAX_BYTES 512
#define NSP_COMM_BYTES 16

enum nsp_event_type {
	NSP_EVENT_EXEC = 1,
	NSP_EVENT_FORK = 2,
	NSP_EVENT_EXIT = 3,
	NSP_EVENT_CONNECT = 4,
	NSP_EVENT_SENDMSG = 5,
	NSP_EVENT_BIND = 6,
	NSP_EVENT_LISTEN = 7,
	NSP_EVENT_ACCEPT = 8,
	NSP_EVENT_CLOSE = 9,
	NSP_EVENT_DNS_QUESTION = 10,
	NSP_EVENT_DNS_ANSWER = 11,
	NSP_EVENT_CGROUP_MKDIR = 12,
	NSP_EVENT_CGROUP_RMDIR = 13,
	NSP_EVENT_CGROUP_ATTACH = 14,
	NSP_EVENT_PACKET_REFUSED = 15,
	NSP_EVENT_PROCESS_INVENTORY = 16, /* iter/task at start-up: same body as EXEC */
	NSP_EVENT_SOCKET_INVENTORY = 17, /* iter/task_file at start-up: same body as a flow */
	NSP_EVENT_HTTP_REQUEST = 18,
	NSP_EVENT_TLS_HELLO = 19,
	NSP_EVENT_ARP = 20,
	NSP_EVENT_RAW_SOCKET = 21, /* a raw socket a profile spoke against: same body as a flow */
};

/*
 * Why a flow was refused, or would have been; 0 where nothing speaks against it. From
 * 4 on it is a profile: the layer that nothing in the profile's rules let through.
 */
enum nsp_reason {
	NSP_REASON_NONE = 0,
	NSP_REASON_QUARANTINED_PROCESS = 1,
	NSP_REASON_QUARANTINED_WORKLOAD = 2,
	NSP_REASON_BLOCKED_DESTINATION = 3,
	NSP_REASON_UNKNOWN_WORKLOAD = 4, /* no profile decision for this cgroup yet */
	NSP_REASON_L3_PROTOCOL = 5,
	NSP_REASON_L4_PROTOCOL = 6, /* protocol, port or ICMP type */
	NSP_REASON_ADDRESS = 7, /* neither in a CIDR nor learned from an allowed name */
	NSP_REASON_DNS_NAME = 8, /* a question for a name that is not allowed */
	NSP_REASON_L7_PROTOCOL = 9, /* recognised, and not in l7.protocols */
	NSP_REASON_HTTP_REQUEST = 10,
	NSP_REASON_TLS_SNI = 11,
	NSP_REASON_OPAQUE = 12, /* a payload that cannot be read, and opaque is deny */
	NSP_REASON_RAW_SOCKET = 13,
	NSP_REASON_ARP_SPOOFING = 14,
	NSP_REASON_MAX = 16,
};

enum nsp_verdict {
	NSP_VERDICT_ALLOWED = 0,
	NSP_VERDICT_REFUSED = 1,
	NSP_VERDICT_ALERTED = 2, /* allowed, but the profile would have refused it */
};

enum nsp_direction {
	NSP_DIRECTION_OUT = 0,
	NSP_DIRECTION_IN = 1,
};

/* What a standard stream is: a socket on stdin or stdout is how a reverse shell looks. */
enum nsp_stdio_kind {
	NSP_STDIO_CLOSED = 0,
	NSP_STDIO_FILE = 1,
	NSP_STDIO_TERMINAL = 2, /* any character device */
	NSP_STDIO_PIPE = 3,
	NSP_STDIO_INET = 4, /* AF_INET or AF_INET6 socket */
	NSP_STDIO_SOCKET = 5, /* any other socket */
	NSP_STDIO_OTHER = 6,
};

struct nsp_event_header {
	__u64 ktime_ns; /* when the hook ran */
	__u64 start_ns; /* with tgid: the process; 0 when nobody owns the event */
	__u64 cgroup_id; /* cgroup v2 id of the process, or the subject of a cgroup event */
	__u64 seq; /* per CPU, counts failed reserves too: a gap is a counted loss */
	__u32 tgid;
	__u32 tid; /* 0 where "current" is not the process (packet hooks, timers) */
	__u16 type; /* enum nsp_event_type */
	__u16 size; /* bytes of the whole event, header and tail included */
	__u16 cpu;
	__u16 flags; /* NSP_EVENT_FLAG_* */
};

/* Set on events the iterators write: the thing was there before the sensor. */
#define NSP_EVENT_FLAG_INVENTORY 1

#define NSP_PATH_TRUNCATED 1 /* more components, or bytes, than fit: the root end is missing */
#define NSP_PATH_DETACHED 2 /* the walk ended in a detached mount or a disconnected dentry */

/*
 * EXEC, PROCESS_INVENTORY. Tail: path_bytes of path components, leaf first, each
 * NUL-terminated, without slashes; then argv_bytes of argv as the process has it
 * (NUL-separated, cut at NSP_ARGV_MAX_BYTES).
 */
struct nsp_exec_event {
	struct nsp_event_header header;
	__u64 parent_start_ns;
	__u64 inode;
	__u32 parent_tgid;
	__u32 dev; /* kernel encoding: major << 20 | minor */
	__u32 nlink; /* 0: deleted or memfd */
	__u32 uid;
	__u32 gid;
	__u32 mnt_ns;
	__u32 pid_ns;
	__u32 net_ns;
	__u32 argv_total_bytes; /* before the cut */
	__u16 mode;
	__u16 path_bytes;
	__u16 argv_bytes;
	__u16 stdio_port; /* of the remote end of the first INET stdio stream */
	__u8 stdio_kind[3]; /* enum nsp_stdio_kind of fd 0, 1, 2 */
	__u8 path_flags; /* NSP_PATH_* */
	__u8 stdio_address[16];
	char comm[NSP_COMM_BYTES];
	__u8 tail[0];
};

/* FORK. The header names the child. */
struct nsp_fork_event {
	struct nsp_event_header header;
	__u64 parent_start_ns;
	__u32 parent_tgid;
	__u32 uid;
	char comm[NSP_COMM_BYTES];
};

/* EXIT of the last thread. exit_code as the kernel has it: status << 8 | signal. */
struct nsp_exit_event {
	struct nsp_event_header header;
	__u32 exit_code;
	__u32 pad;
};

/*
 * CONNECT, SENDMSG (first datagram to this destination on this socket), BIND (only
 * when refused), LISTEN, ACCEPT, PACKET_REFUSED (first per socket), SOCKET_INVENTORY.
 */
struct nsp_flow_event {
	struct nsp_event_header header;
	__u64 cookie; /* socket cookie; 0 where the hook has none */
	__u64 generation; /* of the enforcement or the profile that refused or alerted, else 0 */
	__u8 local_address[16];
	__u8 remote_address[16];
	__u16 local_port;
	__u16 remote_port;
	__u8 family; /* 4 or 6, of the addresses after unmapping */
	__u8 protocol; /* IPPROTO_* */
	__u8 verdict; /* enum nsp_verdict */
	__u8 reason; /* enum nsp_reason */
	__u8 direction; /* enum nsp_direction */
	__u8 tcp_state; /* TCP_* for LISTEN, ACCEPT, SOCKET_INVENTORY */
	__u8 hook; /* enum nsp_event_type that refused, for PACKET_REFUSED: CONNECT=egress, ACCEPT=ingress */
	__u8 pad[5];
};

/* CLOSE of a TCP socket. flow.tcp_state is the state it left; SYN_SENT means never established. */
struct nsp_close_event {
	struct nsp_flow_event flow;
	__u64 bytes_sent; /* acknowledged by the peer */
	__u64 bytes_received;
	__u64 duration_ns; /* since connect or accept; 0 when not seen */
};

#define NSP_DNS_TRUNCATED_COPY 1 /* the message is longer than what was copied */
#define NSP_DNS_MALFORMED 2 /* the walk over names or records failed: records may be few */
#define NSP_DNS_MORE_RECORDS 4 /* more answers than NSP_DNS_MAX_RECORDS or than the walk allows */

/* Where one answer record lies in the message; the offset is of its RDATA. */
struct nsp_dns_record {
	__u32 ttl_s;
	__u16 type;
	__u16 data_offset;
	__u16 data_bytes;
	__u16 owner_offset; /* of the name whose record it is; a pointer is followed once */
};

/*
 * DNS_QUESTION, DNS_ANSWER. Tail: message_bytes of the DNS message (without the TCP
 * length); then, at the next multiple of four bytes, record_count records. A refused
 * question that could not be read has no message.
 */
struct nsp_dns_event {
	struct nsp_event_header header; /* the socket's owner */
	__u64 cookie;
	__u64 generation; /* of the profile that refused or alerted, else 0 */
	__u8 local_address[16];
	__u8 remote_address[16]; /* the server */
	__u16 local_port;
	__u16 remote_port;
	__u16 dns_id;
	__u16 dns_flags; /* the second 16 bits of the message, host order; rcode in the low four */
	__u16 question_type;
	__u16 name_bytes; /* of the question's wire name at message offset 12, with the root label */
	__u16 message_bytes;
	__u16 answer_count; /* as the message claims */
	__u8 family;
	__u8 protocol;
	__u8 record_count; /* records found in the answer section, in DNS_ANSWER */
	__u8 parse_flags; /* NSP_DNS_* */
	__u8 verdict; /* enum nsp_verdict, of a question */
	__u8 reason; /* enum nsp_reason */
	__u8 pad[2];
};

/* What is wrong with an address that somebody claims for a MAC. */
enum nsp_claim_finding {
	NSP_CLAIM_FINE = 0,
	NSP_CLAIM_CONTRADICTION = 1, /* of a binding seen before on that interface */
	NSP_CLAIM_OWN_ADDRESS = 2, /* of the interface itself */
	NSP_CLAIM_GATEWAY = 3, /* of the interface's gateway */
	NSP_CLAIM_SENDER_MISMATCH = 4, /* the frame comes from another MAC than it names */
	NSP_CLAIM_UNSOLICITED = 5, /* an answer nobody asked for */
	NSP_CLAIM_FOREIGN_ADDRESS = 6, /* a packet socket claims what its interface has not */
	NSP_CLAIM_PROTOCOL = 7, /* no rule set lets ARP pass */
	NSP_CLAIM_MALFORMED = 8,
};

enum nsp_claim_protocol {
	NSP_CLAIM_ARP = 0,
	NSP_CLAIM_ND = 1, /* IPv6 neighbour solicitation or advertisement */
};

/*
 * ARP: a claim that a profile spoke against. The header names the workload's cgroup and,
 * when a packet socket sent the frame and that is known, the process.
 */
struct nsp_arp_event {
	struct nsp_event_header header;
	__u64 workload_cgroup_id; /* whose interface it is; 0: the host's */
	__u64 generation; /* of the profile */
	__u64 known_age_ns; /* since known_mac was last confirmed; 0: no binding was known */
	__u32 ifindex;
	__u32 netns; /* inode number of the interface's network namespace */
	__u32 policy_slot;
	__u16 operation; /* of ARP: 1 request, 2 reply; ND: the ICMPv6 type */
	__u16 vlan; /* 0: none */
	__u8 sender_address[16]; /* what is claimed; ND: the target of an advertisement */
	__u8 target_address[16];
	__u8 sender_mac[6]; /* for what it is claimed */
	__u8 target_mac[6];
	__u8 source_mac[6]; /* of the frame */
	__u8 known_mac[6]; /* contradicted; zero: none */
	__u8 protocol; /* enum nsp_claim_protocol */
	__u8 finding; /* enum nsp_claim_finding */
	__u8 verdict; /* enum nsp_verdict */
	__u8 reason; /* enum nsp_reason */
	__u8 direction; /* enum nsp_direction */
	__u8 pad[3];
};

/* What was noticed in a request or a hello. */
#define NSP_L7_SEEN_NO_HOST 1 /* HTTP/1.1 without a Host */
#define NSP_L7_SEEN_HOST_IS_PEER 2 /* the Host is the remote address */
#define NSP_L7_SEEN_DOT_SEGMENT 4 /* the URI has what a server makes another path of */
#define NSP_L7_SEEN_MALFORMED 8
#define NSP_L7_SEEN_ENCRYPTED_HELLO 16 /* ECH: the server name is the outer one's */
#define NSP_L7_SEEN_UPGRADE 32 /* another protocol may follow: Upgrade, CONNECT */
#define NSP_L7_SEEN_TOO_LONG 64 /* beyond what is followed */

#define NSP_L7_URI_BYTES 236
#define NSP_L7_NAME_BYTES 252

/*
 * HTTP_REQUEST: one that a profile judged, allowed or not, where its payload rules speak.
 * The flow's verdict and reason are the request's. Bytes past the lengths mean nothing.
 */
struct nsp_http_event {
	struct nsp_flow_event flow;
	__u16 uri_bytes; /* as sent: the copy is cut at NSP_L7_URI_BYTES */
	__u16 host_bytes; /* of the Host without port; NSP_L7_NAME_BYTES: it was longer */
	__u8 seen; /* NSP_L7_SEEN_* */
	__u8 seen_pad[3];
	__u8 method[16]; /* zero padded */
	__u8 uri[NSP_L7_URI_BYTES];
	__u8 host[NSP_L7_NAME_BYTES]; /* lower case */
};

/* TLS_HELLO: a ClientHello, as above. */
struct nsp_tls_event {
	struct nsp_flow_event flow;
	__u16 name_bytes; /* of the server name, 0: none */
	__u8 seen;
	__u8 seen_pad[1];
	__u8 name[NSP_L7_NAME_BYTES]; /* lower case */
};

/* CGROUP_*. header.cgroup_id is the cgroup; for ATTACH the header names the process moved. */
struct nsp_cgroup_event {
	struct nsp_event_header header;
	__u64 parent_cgroup_id;
	__u32 hierarchy_id; /* only the v2 hierarchy (0) is reported */
	__u32 level;
	__u16 path_bytes; /* without the final NUL */
	__u8 pad[6];
	__u8 tail[0];
};

#endif
