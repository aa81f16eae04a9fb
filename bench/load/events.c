/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes network events at a given rate, or as fast as it can, for a given time:
 *
 *   events MODE ADDRESS RATE SECONDS    RATE 0: no pause
 *
 *   udp  connect() of a UDP socket: one event each, no packet leaves
 *   tcp  TCP connect to ADDRESS:7777 and close: a connect, an accept and two closes
 *
 * Prints the number of operations done. Destinations differ by port for udp, so that
 * nothing is folded into one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TCP_PORT 7777
#define PACE_EVERY 8 /* operations between looks at the clock */

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int udp_connect(int fd, struct sockaddr_in *to, long n)
{
	to->sin_port = htons(1024 + n % 60000);
	return connect(fd, (void *)to, sizeof(*to));
}

static int tcp_connect(struct sockaddr_in *to)
{
	struct linger reset = {.l_onoff = 1};
	int fd = socket(AF_INET, SOCK_STREAM, 0), result;

	to->sin_port = htons(TCP_PORT);
	result = connect(fd, (void *)to, sizeof(*to));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	return result;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	double start, now, rate, seconds;
	long done = 0;
	int fd, udp;

	if (argc != 5 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1) {
		fprintf(stderr, "usage: events udp|tcp ADDRESS RATE SECONDS\n");
		return 2;
	}
	udp = !strcmp(argv[1], "udp");
	rate = atof(argv[3]);
	seconds = atof(argv[4]);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	start = now_s();
	for (;;) {
		if (udp ? udp_connect(fd, &to, done) : tcp_connect(&to)) {
			perror("connect");
			return 1;
		}
		if (++done % PACE_EVERY)
			continue;
		now = now_s() - start;
		if (now >= seconds)
			break;
		if (rate > 0 && done / rate > now)
			usleep((done / rate - now) * 1e6);
	}
	printf("%ld\n", done);
	return 0;
}
