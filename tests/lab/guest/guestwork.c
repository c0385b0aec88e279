/* The lab guest's worker: start-up and the ticks. See guestwork.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/lab/guest/guestwork.h"

static struct guest guest;

uint64_t guest_clock_ns(int clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void guest_sleep_ms(unsigned ms)
{
	struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
		;
}

/* Ticks must tell when the domain stood still, not when the guest's scheduler had something else to do. */
static void ticker_priority_raise(void)
{
	struct sched_param first = {.sched_priority = 50};

	pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
}

static void tick_send(int socket_fd, const struct sockaddr_in *observer, uint64_t seq)
{
	struct guest_tick tick = {
	    .magic = GUEST_TICK_MAGIC,
	    .boot_id = guest.boot_id,
	    .seq = seq,
	    .verify_errors = atomic_load(&guest.verify_errors),
	    .disk_errors = atomic_load(&guest.disk_errors),
	    .disk_records = atomic_load(&guest.disk_records),
	    .monotonic_ns = guest_clock_ns(CLOCK_MONOTONIC),
	};

	/* Full queues and a missing network are what the gaps are there to show: no reason to stop. */
	(void)sendto(socket_fd, &tick, sizeof(tick), MSG_DONTWAIT, (const struct sockaddr *)observer,
		     sizeof(*observer));
}

static void *ticker_run(void *unused)
{
	struct sockaddr_in observer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)guest.options.observer_port)};
	int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned since_try_ms = 0;
	uint64_t seq = 0;

	ticker_priority_raise();
	inet_pton(AF_INET, guest.options.observer, &observer.sin_addr);
	for (;;) {
		guest_sleep_ms(guest.options.tick_ms);
		since_try_ms += guest.options.tick_ms;
		if (!atomic_load(&guest.net_up) && since_try_ms >= 1000) { /* a NIC may be plugged in later */
			since_try_ms = 0;
			atomic_store(&guest.net_up, guest_net_raise(guest.options.address) == 0);
		}
		if (!atomic_load(&guest.net_up))
			continue;
		tick_send(socket_fd, &observer, ++seq);
		atomic_store(&guest.ticks, seq);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread;

	guest_boot_mounts();
	guest_options_read(&guest.options);
	guest_boot_modules();
	while (getrandom(&guest.boot_id, sizeof(guest.boot_id), GRND_INSECURE) != (ssize_t)sizeof(guest.boot_id))
		;
	if (guest_memory_fill(&guest) < 0)
		guest_say("MEMORY BAD cannot have %u MiB", guest.options.memory_mb);
	atomic_store(&guest.net_up, guest_net_raise(guest.options.address) == 0);
	guest_say("READY boot=%016llx", (unsigned long long)guest.boot_id);
	pthread_create(&thread, NULL, ticker_run, NULL);
	pthread_create(&thread, NULL, guest_button_run, &guest);
	pthread_create(&thread, NULL, guest_memory_run, &guest);
	pthread_create(&thread, NULL, guest_disk_run, &guest);
	pthread_create(&thread, NULL, guest_agent_run, &guest);
	if (guest.options.listen_port)
		pthread_create(&thread, NULL, guest_listen_run, &guest);
	guest_console_run(&guest); /* does not return */
	return 1;
}
