/* gantry-observer: records when the lab guests' ticks arrive, from outside every domain and host.
 *
 * Usage: gantry-observer ADDRESS PORT FILE. Appends one fixed record per datagram to FILE until it is killed; each is
 * written at once, so that a reader sees all that has arrived. Arrival is the kernel's time stamp, not ours:
 * a busy machine delays this process, and that must not look like a gap.
 * labkit/observer.py reads the records.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/lab/guest/guestwork.h"

#define RECEIVE_BUFFER_BYTES (8 << 20)

struct observer_record {
	uint64_t monotonic_ns;
	uint64_t realtime_ns;
	uint32_t address; /* network order */
	uint16_t port;
	uint16_t unused;
	uint32_t verify_errors;
	uint32_t disk_errors;
	uint64_t boot_id;
	uint64_t seq;
	uint64_t guest_monotonic_ns;
	uint64_t disk_records;
};
_Static_assert(sizeof(struct observer_record) == 64, "labkit/observer.py reads this layout");

static uint64_t clock_ns(int clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int socket_open(const char *address, const char *port)
{
	struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int on = 1, bytes = RECEIVE_BUFFER_BYTES;

	if (fd < 0 || inet_pton(AF_INET, address, &local.sin_addr) != 1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&local, sizeof(local)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The kernel's stamp of a datagram; the present if it has none. */
static uint64_t arrival_ns(struct msghdr *message)
{
	struct timespec stamp;

	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS)
			continue;
		memcpy(&stamp, CMSG_DATA(part), sizeof(stamp));
		return (uint64_t)stamp.tv_sec * 1000000000u + (uint64_t)stamp.tv_nsec;
	}
	return clock_ns(CLOCK_REALTIME);
}

static uint32_t clamp32(uint64_t count)
{
	return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

/* Receive one datagram; false if it is no tick. */
static int tick_receive(int fd, struct observer_record *ret_record)
{
	struct guest_tick tick;
	struct sockaddr_in sender = {0};
	char control[128];
	struct iovec part = {&tick, sizeof(tick)};
	struct msghdr message = {.msg_name = &sender,
				 .msg_namelen = sizeof(sender),
				 .msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	uint64_t realtime_ns;

	if (recvmsg(fd, &message, 0) != (ssize_t)sizeof(tick) || tick.magic != GUEST_TICK_MAGIC)
		return 0;
	realtime_ns = arrival_ns(&message);
	*ret_record = (struct observer_record){
	    .monotonic_ns = clock_ns(CLOCK_MONOTONIC) - (clock_ns(CLOCK_REALTIME) - realtime_ns),
	    .realtime_ns = realtime_ns,
	    .address = sender.sin_addr.s_addr,
	    .port = ntohs(sender.sin_port),
	    .verify_errors = clamp32(tick.verify_errors),
	    .disk_errors = clamp32(tick.disk_errors),
	    .boot_id = tick.boot_id,
	    .seq = tick.seq,
	    .guest_monotonic_ns = tick.monotonic_ns,
	    .disk_records = tick.disk_records,
	};
	return 1;
}

int main(int argc, char **argv)
{
	struct observer_record record;
	int fd, file;

	if (argc != 4) {
		fprintf(stderr, "usage: gantry-observer ADDRESS PORT FILE\n");
		return 2;
	}
	fd = socket_open(argv[1], argv[2]);
	if (fd < 0) {
		fprintf(stderr, "gantry-observer: cannot listen on %s port %s: %s\n", argv[1], argv[2],
			strerror(errno));
		return 1;
	}
	file = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (file < 0) {
		fprintf(stderr, "gantry-observer: cannot write %s: %s\n", argv[3], strerror(errno));
		return 1;
	}
	for (;;) {
		if (!tick_receive(fd, &record))
			continue;
		if (write(file, &record, sizeof(record)) != (ssize_t)sizeof(record)) {
			fprintf(stderr, "gantry-observer: cannot write %s: %s\n", argv[3], strerror(errno));
			return 1;
		}
	}
}
