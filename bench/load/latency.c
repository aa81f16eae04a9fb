/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the latency of one kind of operation as an application feels it, and
 * writes each sample as a native u32 of nanoseconds to stdout.
 *
 *   latency dns ADDRESS COUNT      round trip of one DNS question to ADDRESS:53 (UDP)
 *   latency connect ADDRESS COUNT  TCP connect to ADDRESS:7777; closing is not timed
 *   latency exec - COUNT           posix_spawn of /bin/true until it has been waited for
 *   latency bulk ADDRESS COUNT     64 KB sent over one TCP connection to ADDRESS:7778
 *   latency serve ADDRESS          answers all of these until killed; prints "ready"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DNS_PORT 53
#define TCP_PORT 7777
#define BULK_PORT 7778
#define BULK_BYTES 65536

extern char **environ;

/* bench.example.test A, recursion desired; the transaction id is set per question. */
static const unsigned char question[] = "\0\0\1\0\0\1\0\0\0\0\0\0\5bench\7example\4test\0\0\1\0\1";

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in address_of(const char *text, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

	if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
		fprintf(stderr, "%s is not an IPv4 address\n", text);
		exit(2);
	}
	return address;
}

static uint32_t dns_round_trip(const char *to, unsigned int id)
{
	static int fd = -1;
	unsigned char message[sizeof(question)], answer[512];
	struct sockaddr_in server = address_of(to, DNS_PORT);
	struct timeval limit = {.tv_sec = 2};
	uint64_t start;

	if (fd < 0) {
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	}
	memcpy(message, question, sizeof(question));
	message[0] = id >> 8;
	message[1] = id;
	start = now_ns();
	if (sendto(fd, message, sizeof(question) - 1, 0, (void *)&server, sizeof(server)) < 0)
		die("sendto");
	if (recv(fd, answer, sizeof(answer), 0) < 0)
		die("recv");
	return now_ns() - start;
}

static uint32_t tcp_connect(const char *to)
{
	struct sockaddr_in server = address_of(to, TCP_PORT);
	struct linger reset = {.l_onoff = 1}; /* no TIME_WAIT: ports would run out */
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	uint64_t start = now_ns();
	uint32_t taken;

	if (connect(fd, (void *)&server, sizeof(server)) < 0)
		die("connect");
	taken = now_ns() - start;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	return taken;
}

static uint32_t send_bulk(const char *to)
{
	static char block[BULK_BYTES];
	static int fd = -1;
	struct sockaddr_in server = address_of(to, BULK_PORT);
	uint64_t start;
	ssize_t sent;
	size_t at;

	if (fd < 0) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd, (void *)&server, sizeof(server)) < 0)
			die("connect");
	}
	start = now_ns();
	for (at = 0; at < sizeof(block); at += sent) {
		sent = send(fd, block + at, sizeof(block) - at, 0);
		if (sent <= 0)
			die("send");
	}
	return now_ns() - start;
}

static uint32_t exec_true(void)
{
	char *argv[] = {"true", NULL};
	uint64_t start = now_ns();
	pid_t child;

	if (posix_spawn(&child, "/bin/true", NULL, NULL, argv, environ))
		die("posix_spawn");
	if (waitpid(child, NULL, 0) < 0)
		die("waitpid");
	return now_ns() - start;
}

static void answer_dns(int fd)
{
	unsigned char message[512];
	struct sockaddr_in peer;
	socklen_t length = sizeof(peer);
	ssize_t size = recvfrom(fd, message, sizeof(message) - 16, 0, (void *)&peer, &length);
	static const unsigned char record[] = "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1";

	if (size < (ssize_t)sizeof(question) - 1)
		return;
	message[2] = 0x81;
	message[3] = 0x80;
	message[7] = 1;
	memcpy(message + size, record, 16);
	sendto(fd, message, size + 16, 0, (void *)&peer, length);
}

static int listen_on(const char *at, int port)
{
	struct sockaddr_in address = address_of(at, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (void *)&address, sizeof(address)))
		die("bind");
	if (listen(fd, 512))
		die("listen");
	return fd;
}

/* One bulk connection after the other, each read to its end by a process of its own. */
static void swallow(int fd)
{
	static char block[BULK_BYTES];
	int client = accept(fd, NULL, NULL);

	if (client < 0)
		return;
	if (fork() == 0) {
		while (recv(client, block, sizeof(block), 0) > 0)
			;
		_exit(0);
	}
	close(client);
}

static void serve(const char *at)
{
	struct sockaddr_in dns = address_of(at, DNS_PORT);
	int client;
	struct pollfd fds[3] = {{socket(AF_INET, SOCK_DGRAM, 0), POLLIN, 0},
				{listen_on(at, TCP_PORT), POLLIN, 0},
				{listen_on(at, BULK_PORT), POLLIN, 0}};

	if (bind(fds[0].fd, (void *)&dns, sizeof(dns)))
		die("bind");
	signal(SIGCHLD, SIG_IGN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		if (poll(fds, 3, -1) < 0)
			die("poll");
		if (fds[2].revents)
			swallow(fds[2].fd);
		if (fds[0].revents)
			answer_dns(fds[0].fd);
		if (fds[1].revents) {
			client = accept(fds[1].fd, NULL, NULL);
			if (client >= 0)
				close(client);
		}
	}
}

int main(int argc, char **argv)
{
	uint32_t *samples;
	long count, i;

	if (argc >= 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	if (argc < 4 || (count = atol(argv[3])) < 1) {
		fprintf(stderr, "usage: latency dns|connect|bulk|exec|serve ADDRESS COUNT\n");
		return 2;
	}
	samples = calloc(count, sizeof(*samples));
	for (i = 0; i < count; i++) {
		if (!strcmp(argv[1], "dns"))
			samples[i] = dns_round_trip(argv[2], i);
		else if (!strcmp(argv[1], "connect"))
			samples[i] = tcp_connect(argv[2]);
		else if (!strcmp(argv[1], "bulk"))
			samples[i] = send_bulk(argv[2]);
		else
			samples[i] = exec_true();
	}
	return fwrite(samples, sizeof(*samples), count, stdout) == (size_t)count ? 0 : 1;
}
