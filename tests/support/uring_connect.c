/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uring_connect ADDRESS PORT: connects by io_uring, without any connect(2), and prints
 * "connected", "EPERM" or the errno.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct io_uring_params params = {0};
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	unsigned *tail, *array, *cq_head, *cq_tail;
	char *sq, *cq;
	int ring, fd, result;

	if (argc != 3)
		return 2;
	inet_pton(AF_INET, argv[1], &to.sin_addr);
	to.sin_port = htons(atoi(argv[2]));
	ring = syscall(__NR_io_uring_setup, 4, &params);
	if (ring < 0) {
		perror("io_uring_setup");
		return 1;
	}
	sq = mmap(0, params.sq_off.array + params.sq_entries * sizeof(unsigned),
		  PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	cq = mmap(0, params.cq_off.cqes + params.cq_entries * sizeof(*cqe), PROT_READ | PROT_WRITE,
		  MAP_SHARED, ring, IORING_OFF_CQ_RING);
	sqe = mmap(0, params.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		   IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || (void *)sqe == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_CONNECT;
	sqe->fd = fd;
	sqe->addr = (unsigned long)&to;
	sqe->off = sizeof(to);
	sqe->flags = IOSQE_ASYNC; /* in a worker thread of the kernel */
	tail = (unsigned *)(sq + params.sq_off.tail);
	array = (unsigned *)(sq + params.sq_off.array);
	array[0] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0) {
		perror("io_uring_enter");
		return 1;
	}
	cq_head = (unsigned *)(cq + params.cq_off.head);
	cq_tail = (unsigned *)(cq + params.cq_off.tail);
	if (*cq_head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE))
		return 1;
	cqe = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
	result = cqe->res;
	if (result == -EPERM)
		puts("EPERM");
	else if (!result)
		puts("connected");
	else
		printf("%d\n", -result);
	return 0;
}
