/* The checkers of domains and power: exact, at the very moment at which a guest begins to run, a volume is opened, a lease is taken, a
 * process is started, a copy is given up or a host is turned off. They know only what they are told here. */
#include <stdio.h>
#include <stdlib.h>

#include "clusterd/core/manager.h"
#include "tests/sim/sim_agent_internal.h"

#define HEALTHY_US (15 * SECOND)
#define STORM_US (60 * SECOND)
/* From the last word of a quorum that reached the agent to the end of its HA domains (agent/core/selffence.c); hosts here have no
 * watchdog. What a pass may be late is far below what a proof by time leaves. */
#define SELFFENCE_LATE_MS 2500
#define SELFFENCE_US ((SELFFENCE_KILL_MS + SELFFENCE_KILL_TAKES_MS + SELFFENCE_LATE_MS) * MS)
#define LOOKS_US (2 * SECOND)

struct check_domain {
	char uuid[37];
	uint64_t key;
	uint64_t started[SIM_HOSTS_MAX + 1];   /* the newest generation that a host began to run */
	uint64_t committed;                    /* the newest generation that a COMMIT gave away */
	uint64_t leased;                       /* the newest that held a lease */
};
struct check_job { uint64_t id; bool committed, ended, complete; };
struct check_goals { char cluster[64]; uint64_t epoch, index; };

struct sim_domain_checks {
	struct check_domain *domains;
	struct check_job *jobs;
	size_t n_domains, n_jobs;
	struct check_goals obeyed[SIM_HOSTS_MAX + 1];
	uint64_t fenced_us[SIM_HOSTS_MAX + 1];
	uint32_t fenced_by[SIM_HOSTS_MAX + 1];
	uint64_t quorum_us[SIM_HOSTS_MAX + 1], looked_us[SIM_HOSTS_MAX + 1];
};

static struct sim_domain_checks *checks(struct sim *s)
{
	if (!s->domain_checks)
		s->domain_checks = mem_alloc(sizeof(*s->domain_checks));
	return s->domain_checks;
}

void check_domains_free(struct sim *s)
{
	if (!s->domain_checks)
		return;
	free(s->domain_checks->domains);
	free(s->domain_checks->jobs);
	free(s->domain_checks);
	s->domain_checks = NULL;
}

static struct check_domain *domain(struct sim *s, const char *uuid)
{
	struct sim_domain_checks *c = checks(s);
	uint64_t key = shape_key(uuid);
	struct check_domain *d;

	for (size_t i = 0; i < c->n_domains; i++)
		if (c->domains[i].key == key && !strcmp(c->domains[i].uuid, uuid))
			return &c->domains[i];
	c->domains = mem_realloc(c->domains, (c->n_domains + 1) * sizeof(*c->domains));
	d = &c->domains[c->n_domains++];
	*d = (struct check_domain){.key = key};
	snprintf(d->uuid, sizeof(d->uuid), "%s", uuid);
	return d;
}

static struct check_job *job(struct sim *s, uint64_t id)
{
	struct sim_domain_checks *c = checks(s);

	/* The newest are asked for most. */
	for (size_t i = c->n_jobs; i-- > 0;)
		if (c->jobs[i].id == id)
			return &c->jobs[i];
	c->jobs = mem_realloc(c->jobs, (c->n_jobs + 1) * sizeof(*c->jobs));
	c->jobs[c->n_jobs] = (struct check_job){.id = id};
	return &c->jobs[c->n_jobs++];
}

/* A fence device lied about one of them: nothing that follows is the platform's doing. */
static bool excused(struct sim *s, const struct sim_host *x, const struct sim_host *y, const char *what)
{
	if (!x->lied_about && !y->lied_about)
		return false;
	sim_trace(s, "%s between %s and %s is not counted: a fence device lied", what, x->name, y->name);
	return true;
}

/* The next QEMU of the domain that is not q, on any host that has power (frozen or not: it goes on at its thaw). */
static struct sim_vm *other_vm(struct sim *s, const struct sim_qemu *q, unsigned *host, const struct sim_qemu **at)
{
	uint64_t key = vm_of(q)->shape.key;

	for (; *host <= s->o.hosts; (*host)++, *at = NULL) {
		*at = *at ? (*at)->next : qemu_first(&s->host[*host]);
		for (; *at; *at = (*at)->next)
			if (*at != q && vm_of(*at)->shape.key == key && !strcmp((*at)->uuid, q->uuid))
				return vm_of(*at);
	}
	return NULL;
}

#define FOR_OTHERS(other, q) \
	unsigned host_ = 1; \
	const struct sim_qemu *at_ = NULL; \
	for (struct sim_vm *other = other_vm(s, q, &host_, &at_); other; other = other_vm(s, q, &host_, &at_))

/* ---- QEMUs ---- */

void check_vcpus_run(struct sim *s, const struct sim_qemu *q)
{
	const struct check_domain *d = domain(s, q->uuid);
	unsigned long long generation = q->generation;

	FOR_OTHERS(other, q)
	{
		if (other->q.phase == QEMU_RUNNING && !excused(s, q->host, other->q.host, "two-hosts-run"))
			sim_violation(s, "two-hosts-run", "%s runs on %s (generation %llu) and on %s (generation %llu)", q->name, q->host->name, generation,
				      other->q.host->name, (unsigned long long)other->q.generation);
	}
	if (q->job_id && !job(s, q->job_id)->committed)
		sim_violation(s, "migration-lost", "%s runs on %s, the destination of task %llu, before COMMIT", q->name, q->host->name, (unsigned long long)q->job_id);
	if (q->generation < d->committed && !q->host->lied_about)
		sim_violation(s, "migration-lost", "%s runs on %s with generation %llu although COMMIT gave it away as %llu", q->name, q->host->name, generation,
			      (unsigned long long)d->committed);
	if (q->job_id)
		check_started(s, q);
}

void check_writer(struct sim *s, const struct sim_qemu *q)
{
	FOR_OTHERS(other, q)
	{
		if (other->open_rw && !excused(s, q->host, other->q.host, "two-writers"))
			sim_violation(s, "two-writers", "%s opens the volumes of %s (generation %llu), which QEMU on %s (generation %llu) has open", q->host->name,
				      q->name, (unsigned long long)q->generation, other->q.host->name, (unsigned long long)other->q.generation);
	}
}

/* A copy counts from the moment it runs: two migrations in a row may both prepare the same generation. */
void check_started(struct sim *s, const struct sim_qemu *q)
{
	struct check_domain *d = domain(s, q->uuid);

	if (q->job_id && q->phase != QEMU_RUNNING)
		return;
	FOR_OTHERS(other, q)
	{
		if (other->open_rw && !excused(s, q->host, other->q.host, "no-proof"))
			sim_violation(s, "no-proof", "%s is started on %s (generation %llu) while %s has power and a QEMU of it (generation %llu) that may write", q->name,
				      q->host->name, (unsigned long long)q->generation, other->q.host->name, (unsigned long long)other->q.generation);
	}
	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (i != q->host->id && d->started[i] >= q->generation && !excused(s, q->host, &s->host[i], "stale-generation"))
			sim_violation(s, "stale-generation", "%s is started on %s for generation %llu; %s had generation %llu", q->name, q->host->name,
				      (unsigned long long)q->generation, s->host[i].name, (unsigned long long)d->started[i]);
	if (q->generation > d->started[q->host->id])
		d->started[q->host->id] = q->generation;
}

void check_lease_taken(struct sim *s, const struct sim_host *h, const char *volume, const char *uuid, uint64_t generation)
{
	struct check_domain *d = domain(s, uuid);

	/* Whatever a fence device said: the lease is a lock of its own. */
	if (generation < d->leased)
		sim_violation(s, "stale-generation", "%s takes the lease of %s for generation %llu after generation %llu held it", h->name, volume,
			      (unsigned long long)generation, (unsigned long long)d->leased);
	if (generation > d->leased)
		d->leased = generation;
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		for (struct sim_qemu *q = i == h->id ? NULL : qemu_first(&s->host[i]); q; q = q->next)
			if (vm_of(q)->open_rw && vm_of(q)->shape.key == d->key && !excused(s, h, q->host, "no-proof"))
				sim_violation(s, "no-proof", "%s takes the lease of %s (generation %llu) while QEMU on %s may write it", h->name, volume,
					      (unsigned long long)generation, q->host->name);
	}
}

void check_goals_obeyed(struct sim *s, const struct sim_host *h, const Gantry__AgentGoals *goals)
{
	struct check_goals *g = &checks(s)->obeyed[h->id];

	if (!strcmp(g->cluster, goals->cluster_uuid) && (goals->epoch < g->epoch || (goals->epoch == g->epoch && goals->index < g->index)))
		sim_violation(s, "stale-generation", "%s obeys goals of epoch %llu index %llu after those of %llu/%llu", h->name, (unsigned long long)goals->epoch,
			      (unsigned long long)goals->index, (unsigned long long)g->epoch, (unsigned long long)g->index);
	snprintf(g->cluster, sizeof(g->cluster), "%s", goals->cluster_uuid);
	g->epoch = goals->epoch;
	g->index = goals->index;
}

/* ---- the self-fence ---- */

void check_quorum_heard(struct sim *s, const struct sim_host *h)
{
	checks(s)->quorum_us[h->id] = s->now_us;
}

void check_selffence(struct sim *s, const struct sim_host *h)
{
	struct sim_domain_checks *c = checks(s);
	bool gap = s->now_us - c->looked_us[h->id] > LOOKS_US;

	c->looked_us[h->id] = s->now_us;
	/* A new agent, one that hung, a host that was frozen: the time before is not counted, nor that without a clusterd if nobody relies on time. */
	if (gap || (!h->agent->connected && !host_has_watchdog(h)))
		c->quorum_us[h->id] = s->now_us;
	if (s->now_us - c->quorum_us[h->id] <= SELFFENCE_US)
		return;
	for (const struct sim_domain *d = h->agent->domains; d; d = d->next)
		if (d->ha && domain_vm(d) && domain_vm(d)->q.phase == QEMU_RUNNING &&
		    (d->policy.isolation == GANTRY__ISOLATION__ISOLATION_STOP || host_has_watchdog(h)))
			sim_violation(s, "self-fence", "%s still runs on %s, which has had no quorum for %llu s", d->shape.name, h->name,
				      (unsigned long long)((s->now_us - c->quorum_us[h->id]) / SECOND));
}

/* ---- migrations ---- */

void check_copy_complete(struct sim *s, const struct sim_vm *vm)
{
	job(s, vm->q.job_id)->complete = true;
}

void check_source_given_up(struct sim *s, const struct sim_vm *vm)
{
	const struct sim_domain *d = domain_of_vm(vm->q.host->agent, vm->q.serial);
	const struct check_job *j = d ? job(s, d->job_id) : NULL;

	if (j && !j->committed && !j->ended && !vm->q.host->lied_about)
		sim_violation(s, "migration-lost", "%s ends its copy of %s, the source of task %llu, before COMMIT", vm->q.host->name, vm->q.name,
			      (unsigned long long)d->job_id);
}

void check_committed(struct sim *s, uint64_t job_id, const char *uuid, uint64_t generation)
{
	struct check_domain *d = domain(s, uuid);
	struct check_job *j = job(s, job_id);

	sim_hash(s, (uint64_t)5 << 56 ^ job_id);
	sim_trace(s, "COMMIT of task %llu is applied: generation %llu", (unsigned long long)job_id, (unsigned long long)generation);
	j->committed = true;
	s->r->migrations_done++;
	if (generation > d->committed)
		d->committed = generation;
	/* One that was complete and died on the way of the COMMIT is restarted by policy; one that never was must not be committed to. */
	if (!j->complete)
		sim_violation(s, "migration-lost", "task %llu is committed although its destination never held a complete image", (unsigned long long)job_id);
	for (unsigned i = 1; i <= s->o.hosts; i++)
		for (struct sim_qemu *q = qemu_first(&s->host[i]); q; q = q->next)
			if (q->phase == QEMU_RUNNING && q->generation < generation && vm_of(q)->shape.key == d->key && !q->host->lied_about)
				sim_violation(s, "migration-lost", "%s runs on %s while COMMIT of task %llu is applied", q->name, q->host->name,
					      (unsigned long long)job_id);
}

void check_aborted(struct sim *s, uint64_t job_id, const char *uuid, uint64_t generation)
{
	sim_hash(s, (uint64_t)6 << 56 ^ job_id);
	sim_trace(s, "task %llu ends without a COMMIT", (unsigned long long)job_id);
	job(s, job_id)->ended = true;
	s->r->migrations_aborted++;
}

/* ---- fences ---- */

/* Whatever was taken for a proof: none of its domains runs there any more. */
void check_declared_dead(struct sim *s, const struct sim_host *h, const char *proof)
{
	for (const struct sim_qemu *q = qemu_first((struct sim_host *)h); q; q = q->next)
		if (q->phase == QEMU_RUNNING && !h->lied_about && !vm_of((struct sim_qemu *)q)->dying)
			sim_violation(s, "false-proof", "%s is declared dead (%s) while %s runs there", h->name, proof, q->name);
}

bool check_fence_asked(struct sim *s, const struct sim_host *t)
{
	return t->powered && t->healthy_us && s->now_us - t->healthy_us > HEALTHY_US;
}

/* Off since by a fence of somebody who was not turned off himself after that: of two halves that fight for a device's vote the one that
 * lost it has decided nothing. */
static bool off_by_fence(struct sim *s, unsigned i)
{
	const struct sim_domain_checks *c = checks(s);
	uint64_t since = c->fenced_us[i];

	return since && s->now_us - since < STORM_US && !s->host[i].powered && since > s->host[i].powered_us && c->fenced_us[c->fenced_by[i]] < since;
}

void check_fenced(struct sim *s, const struct sim_host *by, const struct sim_host *t, bool was_healthy)
{
	struct sim_domain_checks *c = checks(s);
	unsigned n = 0;

	if (was_healthy)
		sim_violation(s, "healthy-fenced", "%s turns %s off, which had been healthy for more than %llu s when that was asked for", by->name, t->name,
			      HEALTHY_US / SECOND);
	/* Those that came back in between had a part in the decision: one lost host after the other is no storm. */
	c->fenced_us[t->id] = s->now_us;
	c->fenced_by[t->id] = by->id;
	for (unsigned i = 1; i <= s->o.hosts; i++)
		n += i == t->id || off_by_fence(s, i);
	if (2 * n > s->o.hosts)
		sim_violation(s, "fence-storm", "%u of %u hosts were turned off within %llu s, the last one %s by %s", n, s->o.hosts, STORM_US / SECOND, t->name, by->name);
}

/* ---- the end of a run ---- */

static const Gantry__Domain *model_find(const Gantry__ClusterModel *model, const char *uuid)
{
	for (size_t i = 0; i < model->n_domains; i++)
		if (!strcmp(model->domains[i]->spec->uuid, uuid))
			return model->domains[i];
	return NULL;
}

static bool wants(const Gantry__Domain *d)
{
	return d->goal != GOAL(STOPPED);
}

static bool in_hand(const Gantry__ClusterModel *model, const Gantry__Domain *d)
{
	for (size_t i = 0; i < model->n_jobs; i++)
		if (model->jobs[i]->id == d->job_id && model->jobs[i]->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING)
			return true;
	return false;
}

static bool has_room(const Gantry__ClusterModel *model, const Gantry__Domain *d)
{
	struct model m = {.state = (Gantry__ClusterModel *)model};
	struct buf reason = {0};
	bool room = placement_choose(&m, d->spec, "", NULL, &reason) != NULL;

	buf_free(&reason);
	return room;
}

static void settled_domain(struct sim *s, const Gantry__ClusterModel *model, const Gantry__Domain *d)
{
	const struct sim_host *owner = d->host[0] ? sim_host_by_name(s, d->host) : NULL;
	enum qemu_phase phase = d->goal == GOAL(PAUSED) ? QEMU_PAUSED : QEMU_RUNNING;
	const struct sim_vm *found = NULL;
	unsigned n = 0;

	if (!wants(d) && !owner)
		return;
	if (!owner) {
		if (has_room(model, d))
			sim_violation(s, "liveness", "%s shall run and there is room, but nobody has it: %s", d->spec->name, d->reason);
		return;
	}
	for (struct sim_qemu *q = qemu_first(owner); q; q = q->next) {
		if (strcmp(q->uuid, d->spec->uuid) != 0)
			continue;
		n++;
		found = vm_of(q);
	}
	if (!wants(d)) {
		sim_violation(s, "liveness", "%s shall be stopped and is still on %s", d->spec->name, d->host);
	} else if (n != 1 || found->q.phase != phase || found->q.generation != d->generation) {
		sim_violation(s, "liveness", "%s shall %s on %s with generation %llu; there %s %u QEMU%s of it, phase %d, generation %llu", d->spec->name,
			      phase == QEMU_RUNNING ? "run" : "be paused", d->host, (unsigned long long)d->generation, n == 1 ? "is" : "are", n, n == 1 ? "" : "s",
			      found ? (int)found->q.phase : -1, found ? (unsigned long long)found->q.generation : 0);
	} else {
		for (size_t i = 0; i < found->shape.n_volumes; i++)
			if (!store_is_held_by(found->shape.volumes[i], d->host, d->generation))
				sim_violation(s, "two-writers", "%s runs on %s, which does not hold the lease of its volume %s", d->spec->name, d->host,
					      store_volume_name(found->shape.volumes[i]));
	}
}

static void settled_vm(struct sim *s, const Gantry__ClusterModel *model, const struct sim_vm *vm)
{
	const struct sim_qemu *q = &vm->q;
	const Gantry__Domain *d = model_find(model, q->uuid);
	const char *what = q->phase == QEMU_INCOMING || q->phase == QEMU_COMPLETE ? "an incoming copy" : vm->stream != STREAM_NONE ? "a source of a migration" : NULL;

	if (!d || strcmp(d->host, q->host->name) != 0)
		sim_violation(s, "two-hosts-run", "QEMU of %s (generation %llu) is on %s, which does not own it", q->name, (unsigned long long)q->generation, q->host->name);
	else if (what && !in_hand(model, d))
		sim_violation(s, "migration-lost", "%s of %s is left on %s", what, q->name, q->host->name);
}

void check_domains_settled(struct sim *s, const Gantry__ClusterModel *model)
{
	for (size_t i = 0; i < model->n_domains; i++)
		settled_domain(s, model, model->domains[i]);
	for (unsigned i = 1; i <= s->o.hosts; i++)
		for (struct sim_qemu *q = qemu_first(&s->host[i]); q; q = q->next)
			settled_vm(s, model, vm_of(q));
}
