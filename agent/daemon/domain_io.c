#include "agent/daemon/domain_io.h"

#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#define IO_AGAIN_MS 10000
#define IO_STEADY_MS 1000

static void domain_io__begin(struct domain *d, int disk, const char *text)
{
	if (d->io_error == NULL || strcmp(d->io_error, text) != 0)
		log_error("domain %s: %s", d->name, text);
	agent_set_text(&d->io_error, text);
	d->io_disk = disk;
	d->io_again_ms = agent_now_ms(d->agent) + IO_AGAIN_MS;
	d->io_steady_ms = 0;
	agent_wake(d->agent);
}

void domain_io_error_event(struct domain *d, json_t *event_data)
{
	const char *node = json_string_value(json_object_get(event_data, "node-name"));
	const char *action = json_string_value(json_object_get(event_data, "action"));
	const char *operation = json_string_value(json_object_get(event_data, "operation"));
	const char *reason = json_string_value(json_object_get(event_data, "reason"));
	_cleanup_free_ char *text = NULL;
	unsigned disk;

	if (action == NULL || strcmp(action, "stop") != 0)
		return;
	if (node == NULL || sscanf(node, "disk%u", &disk) != 1 || disk >= d->spec->n_disks) {
		domain_io_error_found(d);
		return;
	}
	const Gantry__Disk *on = d->spec->disks[disk];
	text = str_printf("paused by an error of its storage: %s of %s %s%s%s (%s): %s", operation != NULL ? operation : "use",
			  on->pool[0] != '\0' ? "volume" : "disk", on->pool[0] != '\0' ? on->pool : on->path,
			  on->pool[0] != '\0' ? "/" : "", on->pool[0] != '\0' ? on->volume : "", on->vdev,
			  reason != NULL ? reason : "no reason given");
	domain_io__begin(d, (int)disk, text);
}

void domain_io_error_found(struct domain *d)
{
	if (d->io_error == NULL)
		domain_io__begin(d, -1, "paused by an error of its storage; which disk it was is not known");
}

static bool domain_io__pool_well(const struct domain *d, const char *pool)
{
	Gantry__PoolReport *const *pools;
	size_t n = storage_pool_reports(d->agent->storage, &pools);

	for (size_t i = 0; i < n; i++)
		if (strcmp(pools[i]->name, pool) == 0)
			return pools[i]->ok;
	return pool[0] == '\0';
}

static bool domain_io__storage_well(const struct domain *d)
{
	for (size_t i = 0; i < d->spec->n_disks; i++)
		if ((d->io_disk < 0 || (size_t)d->io_disk == i) && !domain_io__pool_well(d, d->spec->disks[i]->pool))
			return false;
	return true;
}

bool domain_io_may_go_on(struct domain *d)
{
	if (d->io_error == NULL)
		return true;
	if (!domain_io__storage_well(d)) {
		d->io_again_ms = 0;
		return false;
	}
	return agent_now_ms(d->agent) >= d->io_again_ms;
}

void domain_io_goes_on(struct domain *d)
{
	d->io_again_ms = agent_now_ms(d->agent) + IO_AGAIN_MS;
	d->io_steady_ms = agent_now_ms(d->agent) + IO_STEADY_MS;
}

void domain_io_tend(struct domain *d)
{
	if (d->io_error == NULL || d->actual != ACTUAL_RUNNING)
		return;
	/* A user, or a migration's end, has let it go on. */
	if (d->io_steady_ms == 0)
		domain_io_goes_on(d);
	if (agent_now_ms(d->agent) < d->io_steady_ms)
		return;
	log_notice("domain %s: its storage answers again, the guest goes on", d->name);
	domain_io_forget(d);
}

void domain_io_forget(struct domain *d)
{
	agent_set_text(&d->io_error, NULL);
	d->io_disk = -1;
	d->io_again_ms = d->io_steady_ms = 0;
}
