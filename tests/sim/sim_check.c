/* The checkers of the log: what was applied anywhere is the truth, and everybody else must say the same. docs/proof.md
 * has the list of the invariants and what each one proves. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "clusterd/core/node.h"
#include "lib/buf.h"
#include "proto/pb.h"

#define TABLE_BITS 16

/* What stands at an index, by whoever applied it first. */
struct truth { uint64_t chain, epoch, request; };

/* Requests of clients that were carried out: open addressing, 0 is free. */
struct done { uint64_t request, index; };

struct sim_checks {
	struct truth *truth;
	size_t n_truth;
	uint64_t last, acknowledged;
	struct { uint64_t applied, chain; } host[SIM_HOSTS_MAX + 1];
	struct done *done;
	size_t n_done, cap_done;
	uint64_t *migrations;       /* tasks that are neither committed nor ended */
	size_t n_migrations;
};

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9E3779B97F4A7C15ull;
	return h ^ h >> 29;
}

static uint64_t mix_bytes(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		h = mix(h, word);
	}
	for (word = len; len; len--)
		word = word << 8 | *p++;
	return mix(h, word);
}

/* Never 0. */
static uint64_t request_of(const char *client, uint64_t seq)
{
	return mix(mix_bytes(1, client, strlen(client)), seq) | 1;
}

void checks_new(struct sim *s)
{
	s->checks = mem_alloc(sizeof(*s->checks));
}

void checks_free(struct sim *s)
{
	free(s->checks->truth);
	free(s->checks->done);
	free(s->checks->migrations);
	free(s->checks);
}

void check_member_began(struct sim *s, struct sim_host *h)
{
	const Gantry__ClusterModel *m = node_model(host_node(h))->state;
	struct sim_checks *c = s->checks;

	c->host[h->id].applied = m->applied_index;
	c->host[h->id].chain = 0;
	if (!m->applied_index)
		return;
	if (m->applied_index > c->last)
		sim_violation(s, "agreement", "%s begins with a snapshot of command %lu, which nobody has applied", h->name, m->applied_index);
	else
		c->host[h->id].chain = c->truth[m->applied_index].chain;
}

/* ---- once ------------------------------------------------------------------------ */

static struct done *done_slot(struct sim_checks *c, uint64_t request)
{
	size_t i = request >> 7 & (c->cap_done - 1);

	while (c->done[i].request && c->done[i].request != request)
		i = (i + 1) & (c->cap_done - 1);
	return &c->done[i];
}

static void done_grow(struct sim_checks *c)
{
	struct done *old = c->done;
	size_t cap = c->cap_done;

	if (c->n_done * 2 < c->cap_done)
		return;
	c->cap_done = cap ? 2 * cap : 1u << TABLE_BITS;
	c->done = mem_alloc(c->cap_done * sizeof(*c->done));
	for (size_t i = 0; i < cap; i++)
		if (old[i].request)
			*done_slot(c, old[i].request) = old[i];
	free(old);
}

static void check_once(struct sim *s, const Gantry__Command *cmd, uint64_t request, uint64_t index, const Gantry__CommandResult *result)
{
	struct done *d;

	/* A repeated request gives the first answer again. */
	if (result->log_index != index)
		return;
	done_grow(s->checks);
	d = done_slot(s->checks, request);
	if (d->request)
		sim_violation(s, "exactly-once", "request %lu of %s was carried out at %lu and again at %lu", cmd->seq, cmd->client, d->index, index);
	s->checks->n_done += !d->request;
	*d = (struct done){request, index};
}

/* ---- what is told apart from the log's own words ---------------------------------------- */

/* The fate of migrations out of the state after a command. */
static void look_at_jobs(struct sim *s, const Gantry__ClusterModel *m, const Gantry__Command *cmd, const Gantry__CommandResult *result)
{
	const struct model model = {.state = (Gantry__ClusterModel *)m};
	struct sim_checks *c = s->checks;

	if (cmd->body_case == GANTRY__COMMAND__BODY_MIGRATE_START && result->log_index == m->applied_index) {
		c->migrations = mem_realloc(c->migrations, (c->n_migrations + 1) * sizeof(*c->migrations));
		c->migrations[c->n_migrations++] = result->job_id;
		s->r->migrations++;
	}
	for (size_t i = 0; i < c->n_migrations;) {
		const Gantry__Job *job = model_job(&model, c->migrations[i]);

		if (job && job->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING && !job->committed) {
			i++;
			continue;
		}
		if (job && job->committed)
			check_committed(s, job->id, job->domain_uuid, job->generation);
		else if (job)
			check_aborted(s, job->id, job->domain_uuid, job->generation);
		c->migrations[i] = c->migrations[--c->n_migrations];
	}
}

/* What the state itself must never say. */
static void check_model(struct sim *s, const Gantry__ClusterModel *m, const Gantry__Command *cmd, const Gantry__CommandResult *result)
{
	const struct model model = {.state = (Gantry__ClusterModel *)m};
	const Gantry__Job *job;

	if (result->status != GANTRY__STATUS__STATUS_OK || result->log_index != m->applied_index)
		return;
	switch (cmd->body_case) {
	case GANTRY__COMMAND__BODY_HOST_STATE:
	case GANTRY__COMMAND__BODY_FENCE_CONFIRM:
		for (size_t i = 0; i < m->n_domains; i++) {
			const Gantry__Host *owner = *m->domains[i]->host ? model_host(&model, m->domains[i]->host) : NULL;

			if (*m->domains[i]->host && (!owner || owner->state == GANTRY__HOST_STATE__HOST_STATE_DEAD))
				sim_violation(s, "liveness", "%s is left with %s, which is dead", m->domains[i]->spec->name, m->domains[i]->host);
		}
		break;
	case GANTRY__COMMAND__BODY_MIGRATE_ABORT:
		job = model_job(&model, cmd->migrate_abort->job_id);
		if (job && job->committed)
			sim_violation(s, "migration-lost", "task %lu is aborted after its COMMIT", job->id);
		break;
	case GANTRY__COMMAND__BODY_MIGRATE_COMMIT:
		job = model_job(&model, cmd->migrate_commit->job_id);
		if (job && model_host(&model, job->destination)->state != GANTRY__HOST_STATE__HOST_STATE_ONLINE)
			sim_violation(s, "migration-lost", "task %lu gives %s to %s, which is lost, although the source has it", job->id, job->domain_name,
				      job->destination);
		break;
	default:
		break;
	}
}

/* A command that nobody has applied before. */
static uint64_t look_at(struct sim *s, struct sim_host *h, const struct node_action *a)
{
	const Gantry__CommandResult *result = a->u.applied.result;
	Gantry__Command *cmd = gantry__command__unpack(NULL, a->u.applied.len, a->u.applied.command);
	uint64_t request = 0;

	if (!cmd)
		return 0;
	if (cmd->client[0]) {
		request = request_of(cmd->client, cmd->seq);
		check_once(s, cmd, request, a->u.applied.index, result);
	}
	if (result->status == GANTRY__STATUS__STATUS_OK)
		look_at_jobs(s, node_model(host_node(h))->state, cmd, result);
	check_model(s, node_model(host_node(h))->state, cmd, result);
	if (cmd->body_case == GANTRY__COMMAND__BODY_HOST_STATE && cmd->host_state->state == GANTRY__HOST_STATE__HOST_STATE_DEAD && !result->status) {
		s->r->failovers++;
		check_declared_dead(s, sim_host_by_name(s, cmd->host_state->name), cmd->host_state->proof);
	}
	if (cmd->body_case == GANTRY__COMMAND__BODY_HA_ARM && !cmd->ha_arm->armed && !result->status)
		s->disarmed_us = s->now_us;
	if (cmd->body_case == GANTRY__COMMAND__BODY_EPOCH_START) {
		s->r->epochs++;
		s->r->halves += cmd->epoch_start->n_voters > 0;
	}
	gantry__command__free_unpacked(cmd, NULL);
	return request;
}

/* ---- agreement ------------------------------------------------------------------------------ */

static void installed(struct sim *s, struct sim_host *h, uint64_t index)
{
	struct sim_checks *c = s->checks;

	s->r->snapshots++;
	if (index < c->host[h->id].applied)
		sim_violation(s, "agreement", "%s goes back from %lu to a snapshot of %lu", h->name, c->host[h->id].applied, index);
	if (index > c->last)
		sim_violation(s, "agreement", "%s takes over a snapshot of %lu, which nobody has applied", h->name, index);
	else
		c->host[h->id].chain = c->truth[index].chain;
	c->host[h->id].applied = index;
}

void check_applied(struct sim *s, struct sim_host *h, const struct node_action *a)
{
	struct sim_checks *c = s->checks;
	uint64_t index = a->u.applied.index, chain = c->host[h->id].chain;

	if (a->u.applied.installed) {
		installed(s, h, index);
		return;
	}
	if (index != c->host[h->id].applied + 1)
		sim_violation(s, "order", "%s applies %lu after %lu", h->name, index, c->host[h->id].applied);
	chain = mix(chain, a->u.applied.epoch);
	chain = mix_bytes(chain, a->u.applied.command, a->u.applied.len);
	chain = mix(chain, (uint64_t)a->u.applied.result->status << 40 ^ a->u.applied.result->job_id ^ a->u.applied.result->log_index << 8);
	c->host[h->id].applied = index;
	c->host[h->id].chain = chain;
	if (index >= c->n_truth) {
		c->truth = mem_realloc(c->truth, (index + 4096) * sizeof(*c->truth));
		memset(c->truth + c->n_truth, 0, (index + 4096 - c->n_truth) * sizeof(*c->truth));
		c->n_truth = index + 4096;
	}
	if (index > c->last) {
		c->last = index;
		c->truth[index] = (struct truth){.chain = chain, .epoch = a->u.applied.epoch};
		c->truth[index].request = look_at(s, h, a);
		s->r->commands++;
		sim_hash(s, chain);
	} else if (c->truth[index].chain != chain) {
		sim_violation(s, "agreement", "%s applies another command at %lu than a host before it, or with another result", h->name, index);
	}
}

void check_acknowledged(struct sim *s, const char *client, uint64_t seq, uint64_t log_index)
{
	struct sim_checks *c = s->checks;

	s->r->acknowledged++;
	if (log_index > c->last || c->truth[log_index].request != request_of(client, seq))
		sim_violation(s, "durability", "request %lu of %s was acknowledged as command %lu, which is another one", seq, client, log_index);
	if (log_index > c->acknowledged)
		c->acknowledged = log_index;
}

/* ---- the end ------------------------------------------------------------------------------------ */

static void check_hosts(struct sim *s, const Gantry__ClusterModel *m)
{
	for (size_t i = 0; i < m->n_hosts; i++) {
		const Gantry__Host *h = m->hosts[i];

		if (h->state != GANTRY__HOST_STATE__HOST_STATE_ONLINE || !h->agent_connected)
			sim_violation(s, "liveness", "%s is not back long after the last fault: %s", h->name, h->state_reason);
	}
	if (m->n_voters != m->n_hosts)
		sim_violation(s, "liveness", "%zu of %zu hosts vote long after the last fault", m->n_voters, m->n_hosts);
	for (size_t i = 0; i < m->n_jobs; i++)
		if (m->jobs[i]->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING && m->jobs[i]->kind != GANTRY__JOB_KIND__JOB_KIND_FAILOVER)
			sim_violation(s, "liveness", "task %lu (kind %d, %s) hangs", m->jobs[i]->id, m->jobs[i]->kind, m->jobs[i]->domain_name);
}

void check_settled(struct sim *s)
{
	struct sim_checks *c = s->checks;
	const Gantry__ClusterModel *first = NULL;
	struct buf one = {0}, other = {0};

	for (unsigned i = 1; i <= s->o.hosts && !s->r->violation[0]; i++) {
		struct sim_host *h = &s->host[i];
		struct buf text = {0};

		if (!host_node(h) || !node_is_current(host_node(h))) {
			if (host_node(h))
				node_state_text(host_node(h), &text);
			sim_violation(s, "liveness", "%s is not in step long after the last fault: %s", h->name, host_node(h) ? buf_str(&text) : "its clusterd does not run");
		}
		buf_free(&text);
		if (s->r->violation[0])
			break;
		if (c->host[i].applied != c->last)
			sim_violation(s, "agreement", "%s ends at %lu, the log at %lu", h->name, c->host[i].applied, c->last);
		if (!first) {
			first = node_model(host_node(h))->state;
			pb_pack(first, &one);
			continue;
		}
		other.len = 0;
		pb_pack(node_model(host_node(h))->state, &other);
		if (one.len != other.len || memcmp(one.data, other.data, one.len) != 0)
			sim_violation(s, "agreement", "%s and %s end with different states", s->host[1].name, h->name);
	}
	buf_free(&one);
	buf_free(&other);
	if (!s->r->violation[0] && c->last < c->acknowledged)
		sim_violation(s, "durability", "command %lu was acknowledged, the log ends at %lu", c->acknowledged, c->last);
	if (!s->r->violation[0])
		check_hosts(s, first);
	if (!s->r->violation[0])
		check_domains_settled(s, first);
}
