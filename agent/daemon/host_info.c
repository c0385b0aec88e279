#include "agent/daemon/host_info.h"

#include <string.h>
#include <unistd.h>

#include "agent/daemon/host_watchdog.h"
#include "lib/log.h"
#include "proto/pb.h"

#define PROBE_AGAIN_MS 5000

static void host_info__probed(void *data, int rc, const struct accel_info *info, const struct err *err)
{
	struct agent *a = data;

	a->accel_busy = false;
	agent_wake(a);
	if (rc < 0) {
		log_error("no accelerator yet: %s", err->text);
		agent_set_text(&a->accel_trouble, err->text);
		a->accel_retry_ms = agent_now_ms(a) + PROBE_AGAIN_MS;
		return;
	}
	a->accel = *info;
	a->accel_known = true;
	agent_set_text(&a->accel_trouble, NULL);
	log_notice("QEMU %s with %s (%s)", info->qemu_version_text, info->accel, info->why);
}

void host_info_probe(struct agent *a)
{
	struct err err;
	int rc;

	if (a->accel_known || a->accel_busy || agent_now_ms(a) < a->accel_retry_ms)
		return;
	a->accel_busy = true;
	rc = accel_probe(a->loop, a->conf.qemu_binary, a->conf.accel, host_info__probed, a, &err);
	if (rc < 0)
		host_info__probed(a, rc, NULL, &err);
}

uint64_t host_info_memory(const struct agent *a)
{
	uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t reserve = (uint64_t)a->conf.memory_reserve_mib << 20;

	if (a->conf.memory_mib != 0)
		return (uint64_t)a->conf.memory_mib << 20;
	return total > reserve ? total - reserve : 0;
}

uint64_t host_info_memory_free(const struct agent *a)
{
	uint64_t total = host_info_memory(a), used = agent_memory_used(a);

	return total > used ? total - used : 0;
}

/* QEMUs that the goals in force do not own and no migration explains. Before the first goals none: it is not known whose they are. */
static uint32_t host_info__leftovers(const struct agent *a)
{
	uint32_t n = 0;

	for (const struct domain *d = a->domains; a->goals != NULL && d != NULL; d = d->next) {
		const Gantry__DomainGoal *goal = agent_goal(a, d->uuid);
		bool owned = goal != NULL && goal->generation == d->generation;
		n += d->qemu != NULL && !owned && agent_migration_goal(a, d->uuid) == NULL;
	}
	return n;
}

Gantry__Host *host_info_message(const struct agent *a)
{
	Gantry__Host *host = PB_NEW(Gantry__Host, gantry__host__init);

	pb_set_string(&host->name, a->conf.name);
	pb_set_string(&host->address, a->conf.address);
	pb_set_string(&host->agent_version, GANTRY_VERSION);
	pb_set_string(&host->default_bridge, a->conf.bridge);
	pb_set_string(&host->watchdog, host_watchdog_guard(a));
	host->leftovers = host_info__leftovers(a);
	host->memory_bytes = host_info_memory(a);
	host->cpus = a->conf.cpus != 0 ? a->conf.cpus : (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	host->agent_connected = true;
	if (a->accel_known) {
		pb_set_string(&host->qemu_version, a->accel.qemu_version_text);
		pb_set_string(&host->accel, a->accel.accel);
	}
	return host;
}
