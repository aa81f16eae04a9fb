/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gap DIRECTORY ADDRESS PORT COUNT: makes COUNT cgroups named as pods' below DIRECTORY, one after the
 * other, starts a process in each that connects to ADDRESS:PORT with its first two
 * system calls, socket and connect, and prints how many were refused with EPERM and how many got through.
 * The process is born in its cgroup (CLONE_INTO_CGROUP): nothing comes before. The
 * socket is one of datagrams: connecting it needs nobody at the other end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum outcome { THROUGH = 10, REFUSED = 11, OTHER = 12 };

static enum outcome start(int cgroup, const struct sockaddr_in *to)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup};
	int fd, status;
	pid_t child = syscall(SYS_clone3, &args, sizeof(args));

	if (child < 0)
		return OTHER;
	if (!child) {
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		if (!connect(fd, (const void *)to, sizeof(*to)))
			_exit(THROUGH);
		_exit(errno == EPERM ? REFUSED : OTHER);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : OTHER;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	int counted[3] = {0}, cgroup;
	long count, i;
	char path[4096];

	if (argc != 5 || (count = atol(argv[4])) < 1)
		return 2;
	inet_pton(AF_INET, argv[2], &to.sin_addr);
	to.sin_port = htons(atoi(argv[3]));
	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/pod%08lx-0000-4000-8000-000000000000", argv[1], i);
		if (mkdir(path, 0755) || (cgroup = open(path, O_RDONLY | O_DIRECTORY)) < 0) {
			perror(path);
			return 1;
		}
		switch (start(cgroup, &to)) {
		case THROUGH:
			counted[0]++;
			break;
		case REFUSED:
			counted[1]++;
			break;
		default:
			counted[2]++;
		}
		close(cgroup);
		rmdir(path);
	}
	printf("%d %d %d\n", counted[0], counted[1], counted[2]);
	return 0;
}
