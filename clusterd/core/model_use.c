/* What is promised on each host: asked for each host at each placement, on every member, so the sums are kept beside the state and
 * follow its changes. They decide nothing that a fresh count would not (tests/unit/test_model_random.c compares). */
#include "clusterd/core/model_internal.h"

struct model_use *model__use_new(void)
{
	return mem_alloc(sizeof(struct model_use));
}

void model__use_forget(const struct model *m)
{
	if (m->use)
		m->use->valid = false;
}

static size_t position(const struct model *m, const char *host)
{
	size_t i = 0;

	while (i < m->state->n_hosts && !model__is(m->state->hosts[i]->name, host))
		i++;
	return i;
}

static void change(const struct model *m, const char *host, const Gantry__DomainSpec *spec, bool more, bool owned)
{
	size_t i = position(m, host);

	if (i == m->state->n_hosts || i >= LIMIT_HOSTS)
		return;
	m->use->host[i].memory += more ? spec->memory_bytes : -spec->memory_bytes;
	m->use->host[i].vcpus += more ? spec->vcpus : -spec->vcpus;
	if (owned)
		m->use->host[i].domains += more ? 1 : -1u;
}

void model__use_add(const struct model *m, const char *host, const Gantry__DomainSpec *spec, bool owned)
{
	if (m->use && m->use->valid)
		change(m, host, spec, true, owned);
}

void model__use_remove(const struct model *m, const char *host, const Gantry__DomainSpec *spec, bool owned)
{
	if (m->use && m->use->valid)
		change(m, host, spec, false, owned);
}

/* A migration promises the room on its destination before the domain is there. */
static const char *promised_on(const struct model *m, const Gantry__Domain *d)
{
	const Gantry__Job *job = model__domain_migration(m, d);

	return job && !job->committed ? job->destination : "";
}

static void count(const struct model *m, struct model_use *ret)
{
	const struct model counted = {.state = m->state, .use = ret};

	*ret = (struct model_use){.valid = true};
	for (size_t i = 0; i < m->state->n_domains; i++) {
		const Gantry__Domain *d = m->state->domains[i];

		if (*d->host)
			change(&counted, d->host, d->spec, true, true);
		if (d->job_id && *promised_on(m, d))
			change(&counted, promised_on(m, d), d->spec, true, false);
	}
}

void model__host_use(const struct model *m, const char *host, uint64_t *ret_memory, uint32_t *ret_vcpus, uint32_t *ret_domains)
{
	struct model_use fresh, *use = m->use ? m->use : &fresh;
	size_t i = position(m, host);

	if (use == &fresh || !use->valid)
		count(m, use);
	if (i == m->state->n_hosts || i >= LIMIT_HOSTS) {
		*ret_memory = 0;
		*ret_vcpus = *ret_domains = 0;
		return;
	}
	*ret_memory = use->host[i].memory;
	*ret_vcpus = use->host[i].vcpus;
	*ret_domains = use->host[i].domains;
}

void model_host_use(const struct model *m, const char *host, uint64_t *ret_memory, uint32_t *ret_vcpus)
{
	uint64_t memory;
	uint32_t vcpus, domains;

	model__host_use(m, host, &memory, &vcpus, &domains);
	if (ret_memory)
		*ret_memory = memory;
	if (ret_vcpus)
		*ret_vcpus = vcpus;
}
