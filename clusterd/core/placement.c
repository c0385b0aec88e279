/* Where a domain goes: filters first (each with its reason), then the host that is preferred, then the one with the largest
 * share of memory left over, then the one with fewer domains, then the lowest node id. Pure. */
#include <inttypes.h>
#include <stdio.h>

#include "clusterd/core/manager.h"
#include "clusterd/core/model_internal.h"

#define MIB(bytes) ((bytes) >> 20)

static void promised(const struct model *m, const Gantry__Host *h, const struct placement_extra *extra, size_t n_extra,
		     uint64_t *ret_memory, uint32_t *ret_vcpus, uint32_t *ret_domains)
{
	model__host_use(m, h->name, ret_memory, ret_vcpus, ret_domains);
	for (size_t i = 0; i < n_extra; i++) {
		if (!model__is(extra[i].host, h->name))
			continue;
		*ret_memory += extra[i].memory_bytes;
		*ret_vcpus += extra[i].vcpus;
	}
}

void placement__room(const struct model *m, const Gantry__Host *h, const struct placement_extra *extra, size_t n_extra, uint64_t *ret_memory,
		     uint32_t *ret_vcpus)
{
	uint32_t all = h->cpus * PLACEMENT_VCPUS_PER_CPU, vcpus = 0, domains = 0;
	uint64_t memory = 0;

	promised(m, h, extra, n_extra, &memory, &vcpus, &domains);
	*ret_memory = h->memory_bytes > memory ? h->memory_bytes - memory : 0;
	*ret_vcpus = all > vcpus ? all - vcpus : 0;
}

const char *placement__lost_pool(const Gantry__Host *h, const Gantry__DomainSpec *spec)
{
	for (size_t i = 0; i < h->n_lost_pools; i++)
		for (size_t k = 0; k < spec->n_disks; k++)
			if (model__is(spec->disks[k]->pool, h->lost_pools[i]))
				return h->lost_pools[i];
	return NULL;
}

const char *placement__hindrance(const struct model *m, const Gantry__Host *h, const Gantry__DomainSpec *spec, char *buf, size_t size)
{
	const Gantry__Volume *elsewhere = model__volume_elsewhere(m, spec, h->name);
	const char *lost = placement__lost_pool(h, spec);

	if (h->state != HOST(ONLINE))
		snprintf(buf, size, "%s", model__host_word(h->state));
	else if (h->leftovers && !h->agent_connected)
		snprintf(buf, size, "%u QEMU%s of an earlier time still run%s there", h->leftovers, h->leftovers == 1 ? "" : "s", h->leftovers == 1 ? "s" : "");
	else if (!h->agent_connected)
		snprintf(buf, size, "its agent is not connected");
	else if (model__is(spec->accel, "kvm") && !model__is(h->accel, "kvm"))
		snprintf(buf, size, "the domain wants KVM, which does not work there");
	else if (elsewhere)
		snprintf(buf, size, "its volume %s/%s is only on %s", elsewhere->pool, elsewhere->name, elsewhere->host);
	else if (lost)
		snprintf(buf, size, "it cannot reach pool %s", lost);
	else
		return NULL;
	return buf;
}

const char *placement__obstacle(const struct model *m, const Gantry__Host *h, const Gantry__DomainSpec *spec,
				const struct placement_extra *extra, size_t n_extra, char *buf, size_t size)
{
	const char *hindrance = placement__hindrance(m, h, spec, buf, size);
	uint32_t all = h->cpus * PLACEMENT_VCPUS_PER_CPU, vcpus;
	uint64_t memory;

	if (hindrance)
		return hindrance;
	placement__room(m, h, extra, n_extra, &memory, &vcpus);
	if (spec->memory_bytes > memory)
		snprintf(buf, size, "needs %" PRIu64 " MiB, %" PRIu64 " of %" PRIu64 " MiB are free", MIB(spec->memory_bytes), MIB(memory),
			 MIB(h->memory_bytes));
	else if (spec->vcpus > vcpus)
		snprintf(buf, size, "needs %u vCPUs, %u of %u are taken", spec->vcpus, all - vcpus, all);
	else
		return NULL;
	return buf;
}

struct candidate {
	const Gantry__Host *host;
	bool preferred;
	uint64_t free_permille;
	uint64_t free_bytes;
	uint32_t domains;
};

static bool better(const struct candidate *a, const struct candidate *b)
{
	if (a->preferred != b->preferred)
		return a->preferred;
	if (a->free_permille != b->free_permille)
		return a->free_permille > b->free_permille;
	if (a->domains != b->domains)
		return a->domains < b->domains;
	return a->host->node_id < b->host->node_id;
}

static const char *excluded(const struct placement_wish *wish, const char *host)
{
	for (size_t i = 0; i < 2; i++)
		if (!model__empty(wish->exclude[i]) && model__is(wish->exclude[i], host))
			return wish->exclude_why[i];
	return NULL;
}

bool placement__is_wished(const struct placement_wish *wish, const char *host)
{
	return (model__empty(wish->host) || model__is(wish->host, host)) && !excluded(wish, host);
}

static void say_why(const struct placement_wish *wish, const struct candidate *best, unsigned fitting, struct buf *why_not, struct buf *ret_reason)
{
	if (!best->host)
		buf_printf(ret_reason, "%s", why_not->len ? buf_str(why_not) : "the cluster has no such host");
	else if (!model__empty(wish->host))
		buf_printf(ret_reason, "%s was asked for", best->host->name);
	else if (best->preferred)
		buf_printf(ret_reason, "%s", wish->prefer_why);
	else
		buf_printf(ret_reason, "%s keeps the most memory free (%" PRIu64 " MiB after it) of %u host%s with room", best->host->name,
			   MIB(best->free_bytes), fitting, fitting == 1 ? "" : "s");
}

const Gantry__Host *placement__choose(const struct model *m, const Gantry__DomainSpec *spec, const struct placement_wish *wish, struct buf *ret_reason)
{
	struct candidate best = {0};
	unsigned fitting = 0;
	struct buf why_not = {0};

	for (size_t i = 0; i < m->state->n_hosts; i++) {
		const Gantry__Host *h = m->state->hosts[i];
		struct candidate c = {.host = h};
		uint64_t memory = 0;
		uint32_t vcpus = 0;
		char text[256];
		const char *obstacle;

		if (!model__empty(wish->host) && !model__is(h->name, wish->host))
			continue;
		obstacle = placement__obstacle(m, h, spec, wish->extra, wish->n_extra, text, sizeof(text));
		if (!obstacle)
			obstacle = excluded(wish, h->name);
		if (obstacle) {
			buf_printf(&why_not, "%s%s: %s", why_not.len ? "; " : "", h->name, obstacle);
			continue;
		}
		promised(m, h, wish->extra, wish->n_extra, &memory, &vcpus, &c.domains);
		c.preferred = !model__empty(wish->prefer) && model__is(h->name, wish->prefer);
		c.free_bytes = h->memory_bytes - memory - spec->memory_bytes;
		c.free_permille = c.free_bytes * 1000 / h->memory_bytes;
		fitting++;
		if (!best.host || better(&c, &best))
			best = c;
	}
	say_why(wish, &best, fitting, &why_not, ret_reason);
	buf_free(&why_not);
	return best.host;
}

const Gantry__Host *placement_choose(const struct model *m, const Gantry__DomainSpec *spec, const char *wanted_host, const char *exclude,
				     struct buf *ret_reason)
{
	const struct placement_wish wish = {.host = wanted_host, .exclude = {exclude}, .exclude_why = {"a start has just failed there"}};

	return placement__choose(m, spec, &wish, ret_reason);
}
