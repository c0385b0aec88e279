/* /etc/gantry/host.yaml, this host's own settings, read by libcyaml. Unknown keys and bad
 * values are errors with the file's line. Owner: caller; hostconf_free(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"

struct hostconf {
	char *name;              /* mandatory; the cluster's name of this host */
	char *address;           /* mandatory; IP of corosync ring, API and migration */
	char *bridge;            /* default bridge of domains; default gbr0 */
	char *uplink;            /* NIC that is put into the bridge; empty: none */
	char *accel;             /* auto (default), kvm, tcg */
	uint32_t memory_reserve_mib; /* kept for the host itself; default 512 */
	uint32_t memory_mib;     /* what domains may use; 0 (default): the host's RAM less the reserve */
	uint32_t cpus;           /* 0 (default): as many as the host has */
	char *qemu_binary;       /* default qemu-system-x86_64 */
	char *watchdog;          /* device that resets this host unless it is fed: /dev/watchdog; empty (default): none */
	uint32_t watchdog_timeout_s; /* 5 to 10 (default): from the last feed to the reset */
};
int hostconf_read(const char *path, struct hostconf *ret, struct err *err);
/* Writes a commented file for `cluster init`; durable (fsync, rename). */
int hostconf_write(const char *path, const struct hostconf *conf, struct err *err);
void hostconf_free(struct hostconf *conf);
