/* The leader and the domains: those that want a place, by priority; which of them wait for others that come first; who gives way
 * where there is no room; who must leave a host that has lost a pool. */
#include "clusterd/core/manager_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define START_RETRY_MS 60000          /* a domain that no host could start, but that shall run */
#define CRASH_PAUSE_MS 2000           /* before the second restart in a row; doubled with each */
#define CRASH_PAUSE_MAX_MS 60000
#define POOL_LOST_MS 30000            /* a pool that is away for less only delays */
#define EVICT_PATIENCE_MS 60000       /* a guest that was asked to shut down and does not */
#define EVICT_CHOICE_MAX 64           /* domains of one host that may give way for one other */

/* ---- proposals --------------------------------------------------------------- */

static uint64_t text_hash(const char *s)
{
	uint64_t h = 14695981039346656037ull;

	while (*s)
		h = (h ^ (uint8_t)*s++) * 1099511628211ull;
	return h;
}

static void propose_wait(struct manager *mgr, const Gantry__Domain *d, const char *reason, bool held)
{
	Gantry__Command *c;

	/* Said once: the model remembers the reason. One that has FAILED waits for its next try anyhow. */
	if (d->state != DOM(WAITING) || strstr(d->reason, reason))
		return;
	if (!manager__may_propose(mgr, "wait", d->spec->uuid, d->generation ^ text_hash(reason)))
		return;
	c = manager__propose(mgr, "%s waits: %s", d->spec->name, reason);
	c->body_case = GANTRY__COMMAND__BODY_DOMAIN_WAIT;
	c->domain_wait = PB_NEW(Gantry__CmdDomainWait, gantry__cmd_domain_wait__init);
	c->domain_wait->generation = d->generation;
	c->domain_wait->held = held;
	pb_set_string(&c->domain_wait->uuid, d->spec->uuid);
	pb_set_string(&c->domain_wait->reason, reason);
}

static void promise(struct manager *mgr, const char *host, const Gantry__DomainSpec *spec)
{
	mgr->extra = mem_realloc(mgr->extra, (mgr->n_extra + 1) * sizeof(*mgr->extra));
	mgr->extra[mgr->n_extra++] =
		(struct placement_extra){.host = host, .memory_bytes = spec->memory_bytes, .vcpus = spec->vcpus};
}

static void propose_place(struct manager *mgr, const Gantry__Domain *d, const Gantry__Host *h, const char *reason)
{
	Gantry__Command *c;

	if (!manager__may_propose(mgr, "place", d->spec->uuid, d->generation << 8 | d->state))
		return;
	c = manager__propose(mgr, "%s goes to %s: %s", d->spec->name, h->name, reason);
	c->body_case = GANTRY__COMMAND__BODY_DOMAIN_PLACE;
	c->domain_place = PB_NEW(Gantry__CmdDomainPlace, gantry__cmd_domain_place__init);
	c->domain_place->generation = d->generation + 1;
	c->domain_place->job_id = d->job_id;
	pb_set_string(&c->domain_place->uuid, d->spec->uuid);
	pb_set_string(&c->domain_place->host, h->name);
	pb_set_string(&c->domain_place->reason, reason);
	pb_set_string(&c->domain_place->proof, d->previous_proof);
}

static void propose_evict(struct manager *mgr, const Gantry__Domain *d, const char *reason, bool shutdown)
{
	Gantry__Command *c;

	if (!manager__may_propose(mgr, "evict", d->spec->uuid, d->generation << 1 | shutdown))
		return;
	c = manager__propose(mgr, "%s leaves %s: %s", d->spec->name, d->host, reason);
	c->body_case = GANTRY__COMMAND__BODY_DOMAIN_EVICT;
	c->domain_evict = PB_NEW(Gantry__CmdDomainEvict, gantry__cmd_domain_evict__init);
	c->domain_evict->generation = d->generation;
	c->domain_evict->shutdown = shutdown;
	pb_set_string(&c->domain_evict->uuid, d->spec->uuid);
	pb_set_string(&c->domain_evict->host, d->host);
	pb_set_string(&c->domain_evict->reason, reason);
}

/* ---- not yet ------------------------------------------------------------------ */

static void retry_later(struct manager *mgr, const Gantry__Domain *d)
{
	struct pending *p = manager__pending(mgr, "retry", d->spec->uuid);

	p->state = d->generation;
	p->again_ms = mgr->now_ms + START_RETRY_MS;
}

/* A start that failed everywhere is tried again, but not at once. */
static bool retry_due(struct manager *mgr, const Gantry__Domain *d)
{
	struct pending *p = manager__pending(mgr, "retry", d->spec->uuid);

	if (p->state == d->generation)
		return mgr->now_ms >= p->again_ms;
	retry_later(mgr, d);
	return false;
}

/* The first restart is at once, each further one of the row after a longer pause. */
static bool crash_pause(struct manager *mgr, const Gantry__Domain *d)
{
	uint64_t pause = CRASH_PAUSE_MS;

	if (d->restart_failures < 2)
		return false;
	for (uint32_t i = 2; i < d->restart_failures && pause < CRASH_PAUSE_MAX_MS; i++)
		pause *= 2;
	if (pause > CRASH_PAUSE_MAX_MS)
		pause = CRASH_PAUSE_MAX_MS;
	return mgr->now_ms - manager__since(mgr, "crash", d->spec->uuid, d->generation) < pause;
}

static bool is_users_start(const struct model *m, const Gantry__Domain *d)
{
	const Gantry__Job *job = model__domain_job(m, d);

	return job && job->kind == KIND(START);
}

/* How long a domain that runs may keep those that come after it waiting: until it is ready, and its delay after that. */
static bool holds_others(struct manager *mgr, const Gantry__Domain *d)
{
	uint64_t delay_ms = d->policy->delay_s * 1000ull, limit_ms = d->policy->ready_s * 1000ull;
	uint64_t since = manager__since(mgr, "order", d->spec->uuid, d->generation << 1 | d->ready), waited = mgr->now_ms - since;

	if (!d->ready)
		return waited < limit_ms && mgr->wall_ms < d->state_since_ms + limit_ms + 2 * delay_ms + START_RETRY_MS;
	return waited < delay_ms && mgr->wall_ms < d->ready_ms + delay_ms;
}

/* Of a lower order, meant to run, and on its way: not one that finds no room, or that has failed. */
static bool comes_first(struct manager *mgr, const struct model *m, const Gantry__Domain *d)
{
	if (d->goal == GOAL(STOPPED) || !d->ha)
		return false;
	switch (d->state) {
	case DOM(STARTING):
		return true;
	case DOM(RUNNING):
		return holds_others(mgr, d);
	case DOM(WAITING):
		return !is_users_start(m, d) && manager__pending(mgr, "no-room", d->spec->uuid)->state != d->generation;
	default:
		return false;
	}
}

static const Gantry__Domain *waits_for(struct manager *mgr, const struct model *m, const Gantry__Domain *d)
{
	const Gantry__Domain *first = NULL;

	if (!d->policy->order || is_users_start(m, d))
		return NULL;
	for (size_t i = 0; i < m->state->n_domains; i++) {
		const Gantry__Domain *e = m->state->domains[i];

		if (e->policy->order && e->policy->order < d->policy->order && comes_first(mgr, m, e) &&
		    (!first || e->policy->order < first->policy->order))
			first = e;
	}
	return first;
}

/* ---- room for those that need it more ------------------------------------------- */

static bool may_give_way(const struct model *m, const Gantry__Domain *victim, const Gantry__Domain *d, const Gantry__Host *h)
{
	return model__is(victim->host, h->name) && victim->ha && victim->policy->gives_way && victim->policy->priority < d->policy->priority &&
	       victim->goal != GOAL(STOPPED) && !model__domain_job(m, victim);
}

static int by_worth(const void *x, const void *y)
{
	const Gantry__Domain *a = *(const Gantry__Domain *const *)x, *b = *(const Gantry__Domain *const *)y;

	if (a->policy->priority != b->policy->priority)
		return a->policy->priority < b->policy->priority ? -1 : 1;
	if (a->spec->memory_bytes != b->spec->memory_bytes)
		return a->spec->memory_bytes > b->spec->memory_bytes ? -1 : 1;
	return strcmp(a->spec->name, b->spec->name);
}

struct way {
	const Gantry__Host *host;
	const Gantry__Domain *victims[EVICT_CHOICE_MAX];
	size_t n;                 /* 0: what is being ended there already is enough */
};

static bool way_on(struct manager *mgr, const struct model *m, const Gantry__Domain *d, const Gantry__Host *h, struct way *ret)
{
	uint64_t memory;
	uint32_t vcpus;
	size_t n = 0, leaving = 0;
	char text[256];

	if (placement__hindrance(m, h, d->spec, text, sizeof(text)))
		return false;
	placement__room(m, h, mgr->extra, mgr->n_extra, &memory, &vcpus);
	*ret = (struct way){.host = h};
	for (size_t i = 0; i < m->state->n_domains; i++) {
		const Gantry__Domain *e = m->state->domains[i];

		if (model__is(e->host, h->name) && !model__empty(e->evicted)) {
			memory += e->spec->memory_bytes;
			vcpus += e->spec->vcpus;
			leaving++;
		} else if (may_give_way(m, e, d, h) && ret->n < EVICT_CHOICE_MAX) {
			ret->victims[ret->n++] = e;
		}
	}
	if (d->spec->memory_bytes <= memory && d->spec->vcpus <= vcpus) {
		ret->n = 0;
		return leaving;
	}
	qsort(ret->victims, ret->n, sizeof(*ret->victims), by_worth);
	while (n < ret->n && (d->spec->memory_bytes > memory || d->spec->vcpus > vcpus)) {
		memory += ret->victims[n]->spec->memory_bytes;
		vcpus += ret->victims[n++]->spec->vcpus;
	}
	ret->n = n;
	return d->spec->memory_bytes <= memory && d->spec->vcpus <= vcpus;
}

/* The way that ends the fewest domains, then the least important ones. */
static bool better_way(const struct way *a, const struct way *b)
{
	if (a->n != b->n)
		return a->n < b->n;
	return a->n && a->victims[a->n - 1]->policy->priority < b->victims[b->n - 1]->policy->priority;
}

/* True: it waits for room that is being made. */
static bool make_way(struct manager *mgr, const struct model *m, const Gantry__Domain *d, const struct placement_wish *wish)
{
	struct way best = {0}, way;
	char reason[2 * LIMIT_NAME_CHARS + 64];

	if (!d->ha || manager__is_off(m))
		return false;
	for (size_t i = 0; i < m->state->n_hosts; i++)
		if (placement__is_wished(wish, m->state->hosts[i]->name) && way_on(mgr, m, d, m->state->hosts[i], &way) &&
		    (!best.host || better_way(&way, &best)))
			best = way;
	if (!best.host)
		return false;
	snprintf(reason, sizeof(reason), "it gives way to %s, which has a higher priority (%u) and finds no room elsewhere", d->spec->name, d->policy->priority);
	for (size_t i = 0; i < best.n; i++)
		propose_evict(mgr, best.victims[i], reason, true);
	/* What is made for it is nobody else's. */
	promise(mgr, best.host->name, d->spec);
	snprintf(reason, sizeof(reason), "room is being made for it on %s", best.host->name);
	propose_wait(mgr, d, reason, true);
	return true;
}

/* A guest that does not shut down when it should give way is ended. */
static void hurry_evictions(struct manager *mgr, const struct model *m)
{
	for (size_t i = 0; i < m->state->n_domains; i++) {
		const Gantry__Domain *d = m->state->domains[i];

		if (model__empty(d->evicted) || d->goal == GOAL(STOPPED) || d->state != DOM(STOPPING))
			continue;
		if (mgr->now_ms - manager__since(mgr, "evicted", d->spec->uuid, d->generation) >= EVICT_PATIENCE_MS && model__is(d->stop_how, "shutdown"))
			propose_evict(mgr, d, d->evicted, false);
	}
}

/* ---- pools that a host has lost -------------------------------------------------- */

static bool usable_elsewhere(struct manager *mgr, const struct model *m, const Gantry__Domain *d)
{
	const struct placement_wish wish = {.exclude = {d->host}, .exclude_why = {""}, .extra = mgr->extra, .n_extra = mgr->n_extra};
	struct buf why = {0};
	const Gantry__Host *h = placement__choose(m, d->spec, &wish, &why);

	buf_free(&why);
	if (h)
		promise(mgr, h->name, d->spec);
	return h;
}

/* Where the pool is lost everywhere its domains stand still and go on when it is back; where others reach it they go there. */
static void leave_lost_pools(struct manager *mgr, const struct model *m)
{
	for (size_t i = 0; i < m->state->n_domains; i++) {
		const Gantry__Domain *d = m->state->domains[i];
		const Gantry__Host *h = *d->host && d->ha ? model_host(m, d->host) : NULL;
		const char *lost = h && h->state == HOST(ONLINE) && h->agent_connected ? placement__lost_pool(h, d->spec) : NULL;
		const Gantry__Job *job;
		char reason[2 * LIMIT_NAME_CHARS + 32];

		if (!lost || d->goal == GOAL(STOPPED) || d->state == DOM(STOPPING))
			continue;
		job = model__domain_job(m, d);
		if (job && job->kind != KIND(FAILOVER))
			continue;
		if (mgr->now_ms - manager__since(mgr, "pool", d->spec->uuid, d->generation) < POOL_LOST_MS || !usable_elsewhere(mgr, m, d))
			continue;
		snprintf(reason, sizeof(reason), "%s has lost pool %s, and others have it", h->name, lost);
		propose_evict(mgr, d, reason, false);
	}
}

/* ---- those that want a place -------------------------------------------------------- */

static void place_or_hold(struct manager *mgr, const struct model *m, const Gantry__Domain *d, const Gantry__Host *h, const char *reason)
{
	const Gantry__Domain *first = waits_for(mgr, m, d);
	char text[LIMIT_NAME_CHARS + 64];

	manager__pending(mgr, "no-room", d->spec->uuid)->state = PENDING_NONE;
	/* Its room stays its own meanwhile. */
	promise(mgr, h->name, d->spec);
	if (!first) {
		propose_place(mgr, d, h, reason);
		return;
	}
	snprintf(text, sizeof(text), "order %u: %s (order %u) comes first and is not ready", d->policy->order, first->spec->name, first->policy->order);
	propose_wait(mgr, d, text, true);
}

static void decide_domain(struct manager *mgr, const struct model *m, const Gantry__Domain *d)
{
	const Gantry__Job *job = model__domain_job(m, d);
	struct placement_wish wish = {.host = job && job->kind == KIND(START) ? job->destination : NULL, .prefer_why = "it ran there before",
				      .exclude_why = {"a start has just failed there", "it crashed there too often"}, .extra = mgr->extra, .n_extra = mgr->n_extra};
	const Gantry__Host *h;
	struct buf reason = {0};

	if (manager__is_off(m) && !is_users_start(m, d)) {
		propose_wait(mgr, d, "automatic action is off ('clusterctl ha arm')", true);
		return;
	}
	if ((d->state == DOM(FAILED) && !retry_due(mgr, d)) || crash_pause(mgr, d))
		return;
	if (d->state != DOM(FAILED) && d->start_failures)
		wish.exclude[0] = d->failed_on;
	wish.exclude[1] = d->crashed_on;
	if (d->restart_failures)
		wish.prefer = d->last_host;
	h = placement__choose(m, d->spec, &wish, &reason);
	if (h) {
		place_or_hold(mgr, m, d, h, buf_str(&reason));
	} else if (d->state == DOM(FAILED)) {
		retry_later(mgr, d);
	} else {
		manager__pending(mgr, "no-room", d->spec->uuid)->state = d->generation;
		if (!make_way(mgr, m, d, &wish))
			propose_wait(mgr, d, buf_str(&reason), false);
	}
	buf_free(&reason);
}

static int by_priority(const void *x, const void *y)
{
	const Gantry__Domain *const *a = x, *const *b = y;

	if ((*a)->policy->priority != (*b)->policy->priority)
		return (*a)->policy->priority > (*b)->policy->priority ? -1 : 1;
	return strcmp((*a)->spec->name, (*b)->spec->name);
}

/* Where there is not room for all, those of the highest priority get it, then those that come first by name. */
void manager__decide_domains(struct manager *mgr, const struct model *m)
{
	const Gantry__Domain **wanting = NULL;
	size_t n = 0;

	for (size_t i = 0; i < m->state->n_domains; i++) {
		if (!model__domain_wants_place(m->state->domains[i]))
			continue;
		wanting = mem_realloc(wanting, (n + 1) * sizeof(*wanting));
		wanting[n++] = m->state->domains[i];
	}
	if (n)
		qsort(wanting, n, sizeof(*wanting), by_priority);
	for (size_t i = 0; i < n; i++)
		decide_domain(mgr, m, wanting[i]);
	free(wanting);
	if (manager__is_off(m))
		return;
	hurry_evictions(mgr, m);
	leave_lost_pools(mgr, m);
}
