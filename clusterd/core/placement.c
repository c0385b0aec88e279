/* Where a domain goes: filters first (each with its reason), then the host with the largest share of memory left
 * over, then the one with fewer domains, then the lowest node id. Pure. */
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

const char *placement__obstacle(const struct model *m, const Gantry__Host *h, const Gantry__DomainSpec *spec,
				const struct placement_extra *extra, size_t n_extra, char *buf, size_t size)
{
	const Gantry__Volume *elsewhere = model__volume_elsewhere(m, spec, h->name);
	uint64_t memory = 0, free_bytes;
	uint32_t vcpus = 0, domains = 0;

	if (h->state != HOST(ONLINE)) {
		snprintf(buf, size, "%s", model__host_word(h->state));
		return buf;
	}
	if (!h->agent_connected) {
		snprintf(buf, size, "its agent is not connected");
		return buf;
	}
	promised(m, h, extra, n_extra, &memory, &vcpus, &domains);
	free_bytes = h->memory_bytes > memory ? h->memory_bytes - memory : 0;
	if (spec->memory_bytes > free_bytes) {
		snprintf(buf, size, "needs %" PRIu64 " MiB, %" PRIu64 " of %" PRIu64 " MiB are free", MIB(spec->memory_bytes),
			 MIB(free_bytes), MIB(h->memory_bytes));
		return buf;
	}
	if (vcpus + spec->vcpus > h->cpus * PLACEMENT_VCPUS_PER_CPU) {
		snprintf(buf, size, "needs %u vCPUs, %u of %u are taken", spec->vcpus, vcpus, h->cpus * PLACEMENT_VCPUS_PER_CPU);
		return buf;
	}
	if (model__is(spec->accel, "kvm") && !model__is(h->accel, "kvm")) {
		snprintf(buf, size, "the domain wants KVM, which does not work there");
		return buf;
	}
	if (elsewhere) {
		snprintf(buf, size, "its volume %s/%s is only on %s", elsewhere->pool, elsewhere->name, elsewhere->host);
		return buf;
	}
	return NULL;
}

struct candidate {
	const Gantry__Host *host;
	uint64_t free_permille;
	uint64_t free_bytes;
	uint32_t domains;
};

static bool better(const struct candidate *a, const struct candidate *b)
{
	if (a->free_permille != b->free_permille)
		return a->free_permille > b->free_permille;
	if (a->domains != b->domains)
		return a->domains < b->domains;
	return a->host->node_id < b->host->node_id;
}

const Gantry__Host *placement__choose(const struct model *m, const Gantry__DomainSpec *spec, const char *wanted_host, const char *exclude,
				      const struct placement_extra *extra, size_t n_extra, struct buf *ret_reason)
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

		if (!model__empty(wanted_host) && !model__is(h->name, wanted_host))
			continue;
		obstacle = placement__obstacle(m, h, spec, extra, n_extra, text, sizeof(text));
		if (!obstacle && !model__empty(exclude) && model__is(h->name, exclude))
			obstacle = "a start has just failed there";
		if (obstacle) {
			buf_printf(&why_not, "%s%s: %s", why_not.len ? "; " : "", h->name, obstacle);
			continue;
		}
		promised(m, h, extra, n_extra, &memory, &vcpus, &c.domains);
		c.free_bytes = h->memory_bytes - memory - spec->memory_bytes;
		c.free_permille = c.free_bytes * 1000 / h->memory_bytes;
		fitting++;
		if (!best.host || better(&c, &best))
			best = c;
	}
	if (best.host && !model__empty(wanted_host))
		buf_printf(ret_reason, "%s was asked for", best.host->name);
	else if (best.host)
		buf_printf(ret_reason, "%s keeps the most memory free (%" PRIu64 " MiB after it) of %u host%s with room", best.host->name,
			   MIB(best.free_bytes), fitting, fitting == 1 ? "" : "s");
	else
		buf_append(ret_reason, why_not.len ? buf_str(&why_not) : "the cluster has no such host",
			   why_not.len ? why_not.len : strlen("the cluster has no such host"));
	buf_free(&why_not);
	return best.host;
}

const Gantry__Host *placement_choose(const struct model *m, const Gantry__DomainSpec *spec, const char *wanted_host, const char *exclude,
				     struct buf *ret_reason)
{
	return placement__choose(m, spec, wanted_host, exclude, NULL, 0, ret_reason);
}
