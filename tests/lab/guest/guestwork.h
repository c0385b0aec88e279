/* What the parts of the lab guest's worker share.
 *
 * guestwork is the whole user land of a test domain: PID 1 of an initramfs. It fills memory with a pattern
 * and checks it for ever, ticks by UDP, appends a checksummed log to its disk, and answers on the serial console.
 * Whatever a migration or a failover breaks shows as an error count in the ticks and on the console.
 *
 * Ownership: one `struct guest`, static in guestwork.c, lives as long as the guest. Each field says who writes it.
 * Errors: functions return 0 or a negative errno; faults of what is tested are counted, never fatal.
 */
#ifndef TESTS_LAB_GUEST_GUESTWORK_H
#define TESTS_LAB_GUEST_GUESTWORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_TICK_MAGIC 0x31545747u /* "GWT1" */

/* One datagram, little endian. The observer and its reader know this layout. */
struct guest_tick {
	uint32_t magic;
	uint32_t reserved;
	uint64_t boot_id;
	uint64_t seq;
	uint64_t verify_errors;
	uint64_t disk_errors;
	uint64_t disk_records; /* records the disk has acknowledged: none of them may ever be missing */
	uint64_t monotonic_ns;
};
_Static_assert(sizeof(struct guest_tick) == 56, "the observer reads this layout");

/* From the kernel command line; see guest_options_read() for the defaults. */
struct guest_options {
	char address[32];
	char observer[32];
	char disk[32];
	unsigned observer_port;
	unsigned memory_mb;
	unsigned rate_mb; /* rewritten per second */
	unsigned tick_ms;
	unsigned disk_ms;
	unsigned listen_port; /* 0: none */
};

struct guest {
	struct guest_options options;
	uint64_t boot_id;
	atomic_bool net_up;
	atomic_ullong ticks;	     /* by the ticker */
	atomic_ullong verify_errors; /* by the memory thread and the console */
	atomic_ullong disk_errors;   /* by the disk thread, as are the next two */
	atomic_ullong disk_records;
	atomic_bool disk_found;
	atomic_ullong pages_rewritten;
	atomic_bool agent_hangs;  /* by the console, as is the next one */
	atomic_bool watchdog_fed; /* once true the watchdog runs for ever */
};

/* guest_boot.c: what an init has to do first. */
void guest_boot_mounts(void);
void guest_boot_modules(void);
void guest_options_read(struct guest_options *ret_options);
int guest_net_raise(const char *address);
void guest_power_off(void) __attribute__((noreturn));
void guest_power_reboot(void) __attribute__((noreturn));

/* guest_memory.c: the pattern. `verify_all` returns the number of bad pages. */
int guest_memory_fill(struct guest *guest);
void *guest_memory_run(void *guest);
size_t guest_memory_verify_all(struct guest *guest);
size_t guest_memory_pages(void);
void guest_memory_damage(void);

/* guest_disk.c: the log. */
void *guest_disk_run(void *guest);

/* guest_ha.c: guest agent, port, watchdog. */
void *guest_agent_run(void *guest);
void *guest_listen_run(void *guest);
void guest_watchdog_start(struct guest *guest);

/* guest_console.c: the prompt and the power button. */
void guest_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *guest_console_run(void *guest);
void *guest_button_run(void *guest);

uint64_t guest_clock_ns(int clock);
void guest_sleep_ms(unsigned ms);

#endif
