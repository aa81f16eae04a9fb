/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Byte offsets of the kernel's structs, from the running kernel's BTF, given as
 * -DNSP_OFF_<struct>__<member path>=<bytes>: "." in the path becomes "_". Mirrored by
 * sensor/kernel/offsets.py. A missing one fails the compile here, by its name.
 */
#ifndef NSP_OFFSETS_H
#define NSP_OFFSETS_H

#ifndef NSP_OFF_task_struct__tgid
#error "NSP_OFF_task_struct__tgid is missing"
#endif
#ifndef NSP_OFF_task_struct__pid
#error "NSP_OFF_task_struct__pid is missing"
#endif
#ifndef NSP_OFF_task_struct__mm
#error "NSP_OFF_task_struct__mm is missing"
#endif
#ifndef NSP_OFF_task_struct__comm
#error "NSP_OFF_task_struct__comm is missing"
#endif
#ifndef NSP_OFF_task_struct__real_parent
#error "NSP_OFF_task_struct__real_parent is missing"
#endif
#ifndef NSP_OFF_task_struct__group_leader
#error "NSP_OFF_task_struct__group_leader is missing"
#endif
#ifndef NSP_OFF_task_struct__start_boottime
#error "NSP_OFF_task_struct__start_boottime is missing"
#endif
#ifndef NSP_OFF_task_struct__nsproxy
#error "NSP_OFF_task_struct__nsproxy is missing"
#endif
#ifndef NSP_OFF_task_struct__thread_pid
#error "NSP_OFF_task_struct__thread_pid is missing"
#endif
#ifndef NSP_OFF_task_struct__cgroups
#error "NSP_OFF_task_struct__cgroups is missing"
#endif
#ifndef NSP_OFF_task_struct__exit_code
#error "NSP_OFF_task_struct__exit_code is missing"
#endif
#ifndef NSP_OFF_task_struct__signal
#error "NSP_OFF_task_struct__signal is missing"
#endif
#ifndef NSP_OFF_task_struct__cred
#error "NSP_OFF_task_struct__cred is missing"
#endif
#ifndef NSP_OFF_task_struct__files
#error "NSP_OFF_task_struct__files is missing"
#endif
#ifndef NSP_OFF_signal_struct__live
#error "NSP_OFF_signal_struct__live is missing"
#endif
#ifndef NSP_OFF_cred__uid
#error "NSP_OFF_cred__uid is missing"
#endif
#ifndef NSP_OFF_cred__gid
#error "NSP_OFF_cred__gid is missing"
#endif
#ifndef NSP_OFF_mm_struct__exe_file
#error "NSP_OFF_mm_struct__exe_file is missing"
#endif
#ifndef NSP_OFF_mm_struct__arg_start
#error "NSP_OFF_mm_struct__arg_start is missing"
#endif
#ifndef NSP_OFF_mm_struct__arg_end
#error "NSP_OFF_mm_struct__arg_end is missing"
#endif
#ifndef NSP_OFF_file__f_inode
#error "NSP_OFF_file__f_inode is missing"
#endif
#ifndef NSP_OFF_file__f_path_dentry
#error "NSP_OFF_file__f_path_dentry is missing"
#endif
#ifndef NSP_OFF_file__f_path_mnt
#error "NSP_OFF_file__f_path_mnt is missing"
#endif
#ifndef NSP_OFF_inode__i_ino
#error "NSP_OFF_inode__i_ino is missing"
#endif
#ifndef NSP_OFF_inode__i_sb
#error "NSP_OFF_inode__i_sb is missing"
#endif
#ifndef NSP_OFF_inode__i_mode
#error "NSP_OFF_inode__i_mode is missing"
#endif
#ifndef NSP_OFF_inode__i_nlink
#error "NSP_OFF_inode__i_nlink is missing"
#endif
#ifndef NSP_OFF_super_block__s_dev
#error "NSP_OFF_super_block__s_dev is missing"
#endif
#ifndef NSP_OFF_dentry__d_parent
#error "NSP_OFF_dentry__d_parent is missing"
#endif
#ifndef NSP_OFF_dentry__d_name_name
#error "NSP_OFF_dentry__d_name_name is missing"
#endif
#ifndef NSP_OFF_vfsmount__mnt_root
#error "NSP_OFF_vfsmount__mnt_root is missing"
#endif
#ifndef NSP_OFF_mount__mnt
#error "NSP_OFF_mount__mnt is missing"
#endif
#ifndef NSP_OFF_mount__mnt_parent
#error "NSP_OFF_mount__mnt_parent is missing"
#endif
#ifndef NSP_OFF_mount__mnt_mountpoint
#error "NSP_OFF_mount__mnt_mountpoint is missing"
#endif
#ifndef NSP_OFF_nsproxy__mnt_ns
#error "NSP_OFF_nsproxy__mnt_ns is missing"
#endif
#ifndef NSP_OFF_nsproxy__net_ns
#error "NSP_OFF_nsproxy__net_ns is missing"
#endif
#ifndef NSP_OFF_mnt_namespace__ns_inum
#error "NSP_OFF_mnt_namespace__ns_inum is missing"
#endif
#ifndef NSP_OFF_mnt_namespace__user_ns
#error "NSP_OFF_mnt_namespace__user_ns is missing"
#endif
#ifndef NSP_OFF_user_namespace__level
#error "NSP_OFF_user_namespace__level is missing"
#endif
#ifndef NSP_OFF_linux_binprm__filename
#error "NSP_OFF_linux_binprm__filename is missing"
#endif
#ifndef NSP_OFF_linux_binprm__interp
#error "NSP_OFF_linux_binprm__interp is missing"
#endif
#ifndef NSP_OFF_net__ns_inum
#error "NSP_OFF_net__ns_inum is missing"
#endif
#ifndef NSP_OFF_net_device__nd_net
#error "NSP_OFF_net_device__nd_net is missing"
#endif
#ifndef NSP_OFF_sk_buff__dev
#error "NSP_OFF_sk_buff__dev is missing"
#endif
#ifndef NSP_OFF_pid__level
#error "NSP_OFF_pid__level is missing"
#endif
#ifndef NSP_OFF_pid__numbers
#error "NSP_OFF_pid__numbers is missing"
#endif
#ifndef NSP_OFF_upid__ns
#error "NSP_OFF_upid__ns is missing"
#endif
#ifndef NSP_OFF_pid_namespace__ns_inum
#error "NSP_OFF_pid_namespace__ns_inum is missing"
#endif
#ifndef NSP_OFF_css_set__dfl_cgrp
#error "NSP_OFF_css_set__dfl_cgrp is missing"
#endif
#ifndef NSP_OFF_cgroup__kn
#error "NSP_OFF_cgroup__kn is missing"
#endif
#ifndef NSP_OFF_cgroup__level
#error "NSP_OFF_cgroup__level is missing"
#endif
#ifndef NSP_OFF_cgroup__root
#error "NSP_OFF_cgroup__root is missing"
#endif
#ifndef NSP_OFF_cgroup__self
#error "NSP_OFF_cgroup__self is missing"
#endif
#ifndef NSP_OFF_cgroup__self_parent
#error "NSP_OFF_cgroup__self_parent is missing"
#endif
#ifndef NSP_OFF_kernfs_node__id
#error "NSP_OFF_kernfs_node__id is missing"
#endif
#ifndef NSP_OFF_kernfs_node__name
#error "NSP_OFF_kernfs_node__name is missing"
#endif
#ifndef NSP_OFF_cgroup_root__hierarchy_id
#error "NSP_OFF_cgroup_root__hierarchy_id is missing"
#endif
#ifndef NSP_OFF_files_struct__fdt
#error "NSP_OFF_files_struct__fdt is missing"
#endif
#ifndef NSP_OFF_fdtable__fd
#error "NSP_OFF_fdtable__fd is missing"
#endif
#ifndef NSP_OFF_fdtable__max_fds
#error "NSP_OFF_fdtable__max_fds is missing"
#endif
#ifndef NSP_OFF_socket_alloc__socket
#error "NSP_OFF_socket_alloc__socket is missing"
#endif
#ifndef NSP_OFF_socket_alloc__vfs_inode
#error "NSP_OFF_socket_alloc__vfs_inode is missing"
#endif
#ifndef NSP_OFF_socket__sk
#error "NSP_OFF_socket__sk is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_family
#error "NSP_OFF_sock____sk_common_skc_family is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_state
#error "NSP_OFF_sock____sk_common_skc_state is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_flags
#error "NSP_OFF_sock____sk_common_skc_flags is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_dport
#error "NSP_OFF_sock____sk_common_skc_dport is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_daddr
#error "NSP_OFF_sock____sk_common_skc_daddr is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_rcv_saddr
#error "NSP_OFF_sock____sk_common_skc_rcv_saddr is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_v6_daddr
#error "NSP_OFF_sock____sk_common_skc_v6_daddr is missing"
#endif
#ifndef NSP_OFF_sock____sk_common_skc_v6_rcv_saddr
#error "NSP_OFF_sock____sk_common_skc_v6_rcv_saddr is missing"
#endif
#ifndef NSP_OFF_inet_sock__inet_sport
#error "NSP_OFF_inet_sock__inet_sport is missing"
#endif
#ifndef NSP_OFF_sock__sk_protocol
#error "NSP_OFF_sock__sk_protocol is missing"
#endif
#ifndef NSP_OFF_tcp_sock__bytes_acked
#error "NSP_OFF_tcp_sock__bytes_acked is missing"
#endif
#ifndef NSP_OFF_tcp_sock__bytes_received
#error "NSP_OFF_tcp_sock__bytes_received is missing"
#endif
#ifndef NSP_OFF_tcp_sock__bytes_sent
#error "NSP_OFF_tcp_sock__bytes_sent is missing"
#endif
#ifndef NSP_OFF_tcp_sock__bytes_retrans
#error "NSP_OFF_tcp_sock__bytes_retrans is missing"
#endif

#endif
