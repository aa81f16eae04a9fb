/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resolves a name and connects to what was answered, again and again:
 *
 *   names serve ADDRESS        answers on ADDRESS:53 (UDP) and accepts on port 7777 of every
 *                              address, until killed; prints "ready"
 *   names run ADDRESS COUNT    prints: connected, denied after an answer, refused without
 *                              one, connected without one, denied after the answer had
 *                              expired (the machine was busy), failed otherwise
 *
 * The name says its number; the answer for number n is 127.100.x.y with x.y = n modulo
 * HOSTS, so an address comes again long after its TTL of 0 is over. Answers take turns:
 * plain, chain of aliases, the address as the last of 32; questions in mixed case.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define DNS_PORT 53
#define TCP_PORT 7777
#define HOSTS 4096
#define LIFE_NS 100000000ull /* the floor that bench/names.py sets */
#define NAME_AT 12
#define NUMBER_DIGITS 6
#define FORMS 3
#define RECORDS 32

/* n000000.names.test A, recursion desired; number and id are set per question. */
static const unsigned char question[] = "\0\0\1\0\0\1\0\0\0\0\0\0\7n000000\5names\4test\0\0\1\0\1";

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static struct sockaddr_in at(uint32_t address, int port)
{
	struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons(port)};

	found.sin_addr.s_addr = htonl(address);
	return found;
}

static uint32_t host_of(unsigned int number)
{
	return 127u << 24 | 100u << 16 | number % HOSTS;
}

static size_t put_record(unsigned char *to, unsigned int owner, int type, uint32_t address)
{
	static const unsigned char alias[] = "\5alias\4test";
	unsigned char head[12] = {0xc0, owner, 0, type, 0, 1, 0, 0, 0, 0, 0, 4};

	if (type == 5) {
		head[11] = sizeof(alias);
		memcpy(to, head, sizeof(head));
		memcpy(to + sizeof(head), alias, sizeof(alias));
		return sizeof(head) + sizeof(alias);
	}
	address = htonl(address);
	memcpy(to, head, sizeof(head));
	memcpy(to + sizeof(head), &address, 4);
	return sizeof(head) + 4;
}

static void answer(int fd)
{
	unsigned char message[2048];
	struct sockaddr_in peer;
	socklen_t length = sizeof(peer);
	ssize_t size = recvfrom(fd, message, 512, 0, (void *)&peer, &length);
	unsigned int number, records = 1;
	uint32_t host;

	if (size != (ssize_t)sizeof(question) - 1)
		return;
	number = strtoul((char *)message + NAME_AT + 2, NULL, 10);
	host = host_of(number);
	message[2] = 0x81;
	message[3] = 0x80;
	if (number % FORMS == 1) {
		size += put_record(message + size, NAME_AT, 5, 0);
		size += put_record(message + size, sizeof(question) - 1 + 12, 1, host);
		records = 2;
	} else if (number % FORMS == 2) {
		for (records = 0; records < RECORDS - 1; records++)
			size += put_record(message + size, NAME_AT, 1, 0x0a000000 + records);
		size += put_record(message + size, NAME_AT, 1, host);
		records++;
	} else {
		size += put_record(message + size, NAME_AT, 1, host);
	}
	message[7] = records;
	sendto(fd, message, size, 0, (void *)&peer, length);
}

static void serve(uint32_t address)
{
	struct sockaddr_in dns = at(address, DNS_PORT), tcp = at(INADDR_ANY, TCP_PORT);
	struct pollfd fds[2] = {{socket(AF_INET, SOCK_DGRAM, 0), POLLIN, 0},
				{socket(AF_INET, SOCK_STREAM, 0), POLLIN, 0}};
	int one = 1, client;

	setsockopt(fds[1].fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fds[0].fd, (void *)&dns, sizeof(dns)) ||
	    bind(fds[1].fd, (void *)&tcp, sizeof(tcp)) || listen(fds[1].fd, 512))
		die("bind");
	puts("ready");
	fflush(stdout);
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			die("poll");
		if (fds[0].revents)
			answer(fds[0].fd);
		if (fds[1].revents && (client = accept(fds[1].fd, NULL, NULL)) >= 0)
			close(client);
	}
}

static void resolve(int fd, struct sockaddr_in *server, unsigned int number)
{
	unsigned char message[sizeof(question)], got[2048];
	char digits[NUMBER_DIGITS + 1];
	int i;

	memcpy(message, question, sizeof(question));
	snprintf(digits, sizeof(digits), "%06u", number % 1000000);
	memcpy(message + NAME_AT + 2, digits, NUMBER_DIGITS);
	message[0] = number >> 8;
	message[1] = number;
	for (i = NAME_AT + 9; i < NAME_AT + 19; i++)
		if (number >> (i & 7) & 1)
			message[i] = toupper(message[i]);
	if (sendto(fd, message, sizeof(question) - 1, 0, (void *)server, sizeof(*server)) < 0)
		die("sendto");
	if (recv(fd, got, sizeof(got), 0) < 0)
		die("recv");
}

/* 0, or why not. */
static int try_connect(uint32_t address)
{
	struct sockaddr_in to = at(address, TCP_PORT);
	struct linger reset = {.l_onoff = 1};
	int fd = socket(AF_INET, SOCK_STREAM, 0), result = 0;

	if (connect(fd, (void *)&to, sizeof(to)))
		result = errno;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	return result;
}

int main(int argc, char **argv)
{
	unsigned int said[6] = {0}, number, count;
	struct timeval limit = {.tv_sec = 2};
	struct in_addr address;
	struct sockaddr_in server;
	uint64_t asked_ns;
	int fd, result;

	if (argc < 3 || inet_pton(AF_INET, argv[2], &address) != 1) {
		fprintf(stderr, "usage: names serve ADDRESS | run ADDRESS COUNT\n");
		return 2;
	}
	if (!strcmp(argv[1], "serve"))
		serve(ntohl(address.s_addr));
	count = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
	server = at(ntohl(address.s_addr), DNS_PORT);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	for (number = 0; number < count; number++) {
		asked_ns = now_ns();
		resolve(fd, &server, number);
		result = try_connect(host_of(number));
		if (result == EPERM && now_ns() - asked_ns > LIFE_NS)
			said[4]++;
		else
			said[!result ? 0 : result == EPERM ? 1 : 5]++;
		/* Half a turn ago, long expired, or never answered at all. */
		result = try_connect(host_of(number + HOSTS / 2));
		said[!result ? 3 : result == EPERM ? 2 : 5]++;
	}
	printf("%u %u %u %u %u %u\n", said[0], said[1], said[2], said[3], said[4], said[5]);
	return 0;
}
