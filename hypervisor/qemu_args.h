/* DomainSpec -> QEMU's argument vector. Pure: what is chosen by the host comes in `struct qemu_args_host`.
 * Both sides of a migration build the same devices at the same addresses from the same spec. Nothing secret is ever
 * an argument: a VNC password has to be set by QMP (`set_password`) before `cont`, and nobody gets in without it.
 * QEMU is started paused (-S); its owner says `cont`. Needs QEMU 7.2. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/domain.pb-c.h"

/* Of the guest agent's port: its chardev (RUN_DIR/agent.sock) and its device, in QMP's answers and events. */
#define QEMU_GUEST_AGENT_ID "agent"

struct qemu_args_disk { const char *uri; /* file path, device or nfs://..., as storage resolved it; NULL for an empty drive */ };
struct qemu_args_nic { const char *ifname; /* tap that exists */ };

struct qemu_args_host {
	const char *binary;
	const char *accel;          /* kvm or tcg: already decided */
	uint32_t qemu_version;      /* 0x070216 for 7.2.22 */
	const char *run_dir;        /* PATH_DOMAINS/UUID */
	const char *log_dir;
	const struct qemu_args_disk *disks; /* in the order of spec->disks */
	const struct qemu_args_nic *nics;   /* in the order of spec->nics */
	bool incoming;              /* -incoming defer */
};
/* Result: NULL-terminated vector, each element and the array from the heap: strv_free().
 * Memory under TCG with QEMU < 9.0 gets the migration remedy of docs (RAM no multiple of 256 KiB).
 * -EINVAL: the spec asks for what QEMU cannot do; the text names the disk, NIC or key. */
int qemu_args_build(const Gantry__DomainSpec *spec, const struct qemu_args_host *host, char ***ret, struct err *err);
void strv_free(char **v);
/* The RAM size that is really given to QEMU for this spec on this host (both sides of a migration must agree: part of the spec's rules). */
uint64_t qemu_args_ram_bytes(const Gantry__DomainSpec *spec, const char *accel, uint32_t qemu_version);
