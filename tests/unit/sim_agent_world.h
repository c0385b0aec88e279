/* A small world for the simulator's agents, over its clock (sim_clock.c): cables, power, and the real model in place of the clusterds: what a report asks for is
 * applied at once, in one order, and goals go to all hosts that are reached. No log. Include cmocka.h before; one test includes it. */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_agent_internal.h"
#include "tests/unit/model_fixture.h"

struct world {
	struct sim s;
	struct sim_result r;
	struct fixture f;
	bool cut[4][4];                    /* cables, from and to; 0 is the store */
	bool out_of_quorum[4];
	bool holds_commit;                 /* COMMITs wait here instead of being applied */
	Gantry__Command *held;
	bool places;                       /* the leader */
	unsigned fences_answered;
	int fence_rc;
};
static struct world *world;

static void world_ms(uint64_t ms)
{
	sim_run_until(&world->s, world->s.now_us + ms * MS);
}

/* ---- cables and power ---- */

bool net_reaches(const struct sim *s, const struct sim_host *from, const struct sim_host *to)
{
	return from->powered && to->powered && !world->cut[from->id][to->id];
}

bool net_reaches_store(const struct sim *s, const struct sim_host *h)
{
	return h->powered && !world->cut[h->id][0];
}

void host_power_off(struct sim *s, struct sim_host *h, const char *why)
{
	sim_trace(s, "%s: no power: %s", h->name, why);
	h->life[LIFE_POWER]++;
	h->life[LIFE_CLUSTERD]++;
	agent_power_lost(s, h);
	h->powered = h->frozen = false;
}

void host_power_on(struct sim *s, struct sim_host *h)
{
	sim_trace(s, "%s: has power", h->name);
	h->powered = true;
	h->powered_us = s->now_us;
	agent_start(s, h);
	agent_connected(s, h, true);
}

void host_fence_answer(struct sim *s, struct sim_host *by, const char *target, int rc, const char *text, bool by_time)
{
	world->fences_answered++;
	world->fence_rc = rc;
}

/* ---- the cluster's log, as one model ---- */

static void goals_go(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	Gantry__AgentGoals *goals = model_goals(&world->f.m, h->name, world->f.m.state->applied_epoch, world->f.m.state->applied_index);

	agent_take_goals(s, h, goals);
	gantry__agent_goals__free_unpacked(goals, NULL);
}

static void world_goals(void)
{
	struct sim *s = &world->s;

	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (s->host[i].powered && !world->out_of_quorum[i])
			sim_after(s, 1 * MS, &s->host[i], LIFE_CLUSTERD, goals_go, 0, NULL, NULL);
}

/* What the simulator's clusterd tells the checkers when it is the first to apply something. */
static void tell_checkers(const Gantry__Command *c, const uint64_t *before, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const Gantry__Job *j = model_job(&world->f.m, before[i]);

		if (j && c->body_case == GANTRY__COMMAND__BODY_MIGRATE_COMMIT && c->migrate_commit->job_id == j->id && j->committed)
			check_committed(&world->s, j->id, j->domain_uuid, j->generation);
		if (j && j->state != GANTRY__JOB_STATE__JOB_STATE_RUNNING && !j->committed)
			check_aborted(&world->s, j->id, j->domain_uuid, j->generation);
	}
}

static void world_apply(Gantry__Command *c)
{
	const Gantry__ClusterModel *m = world->f.m.state;
	uint64_t running[64];
	size_t n = 0;

	for (size_t i = 0; i < m->n_jobs && n < 64; i++)
		if (m->jobs[i]->kind == GANTRY__JOB_KIND__JOB_KIND_MIGRATE && m->jobs[i]->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING)
			running[n++] = m->jobs[i]->id;
	world->f.time_ms = 1000 + world->s.now_us / 1000;
	c->time_ms = 0;
	if (fixture_apply(&world->f, c))
		sim_trace(&world->s, "refused: %s", world->f.result->text);
	tell_checkers(c, running, n);
	world_goals();
}

static void command_applied(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	Gantry__Command *c = p;

	if (world->holds_commit && c->body_case == GANTRY__COMMAND__BODY_MIGRATE_COMMIT && !world->held) {
		world->held = c;
		return;
	}
	world_apply(c);
	gantry__command__free_unpacked(c, NULL);
}

static void command_drop(void *p)
{
	gantry__command__free_unpacked(p, NULL);
}

void host_agent_report(struct sim *s, struct sim_host *h, Gantry__AgentReport *report)
{
	Gantry__Command **commands = NULL;
	size_t n = 0;

	if (!world->out_of_quorum[h->id])
		model_commands_for_report(&world->f.m, h->name, report, &commands, &n);
	gantry__agent_report__free_unpacked(report, NULL);
	for (size_t i = 0; i < n; i++)
		sim_after(s, 2 * MS, NULL, LIFE_POWER, command_applied, 0, commands[i], command_drop);
	free(commands);
}

/* A command of a user or the leader, as JSON with ' for ". It must be accepted. */
static void world_do(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void world_do(const char *fmt, ...)
{
	char text[800];
	va_list ap;
	Gantry__Command *c;
	json_t *json;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	json = fixture_json(text);
	c = fixture_message(json, &gantry__command__descriptor);
	json_decref(json);
	world_apply(c);
	if (world->f.result->status)
		fail_msg("refused: %s\n%s", world->f.result->text, text);
	gantry__command__free_unpacked(c, NULL);
}

/* ---- the leader, as far as it is needed: everything that waits goes to a host that is online and not out of quorum ---- */

static void leader_looks(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	const Gantry__ClusterModel *m = world->f.m.state;

	for (size_t i = 0; world->places && i < m->n_domains; i++) {
		const Gantry__Domain *d = m->domains[i];

		if (d->host[0] || d->goal == GOAL(STOPPED) || (d->state != STATE(WAITING) && d->state != STATE(FAILED)))
			continue;
		for (size_t k = 0; k < m->n_hosts; k++)
			if (m->hosts[k]->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE && m->hosts[k]->agent_connected && strcmp(m->hosts[k]->name, d->failed_on) != 0) {
				world_do("{'domain_place': {'uuid': '%s', 'host': '%s', 'generation': %llu, 'reason': 'room'}}", d->spec->uuid, m->hosts[k]->name,
					 (unsigned long long)d->generation + 1);
				break;
			}
	}
	sim_after(s, 200 * MS, NULL, LIFE_POWER, leader_looks, 0, NULL, NULL);
}

static void heartbeats(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (s->host[i].powered && !s->host[i].frozen)
			agent_take_quorum(s, &s->host[i], !world->out_of_quorum[i], world->f.m.state->applied_epoch);
	sim_after(s, 500 * MS, NULL, LIFE_POWER, heartbeats, 0, NULL, NULL);
}

/* ---- life ---- */

static void world_new(unsigned hosts, uint64_t seed)
{
	struct world *w = world = mem_alloc(sizeof(*w));

	w->s.r = &w->r;
	w->s.o.hosts = hosts;
	w->s.o.trace = getenv("GANTRY_TRACE") != NULL;
	w->s.rng = seed * 0x9E3779B97F4A7C15ull + 1;
	w->s.quiet = true; /* nothing fails by chance */
	w->places = true;
	store_new(&w->s);
	fences_new(&w->s);
	fixture_start(&w->f);
	for (unsigned i = 1; i <= hosts; i++) {
		struct sim_host *h = &w->s.host[i];

		h->id = i;
		snprintf(h->name, sizeof(h->name), "host%u", i);
		h->memory_bytes = 8ull << 30;
		h->drift = 1;
		h->powered = true;
		if (i == 1)
			world_do("{'cluster_init': {'name': 'c', 'uuid': '11111111-2222-4333-8444-555555555555',"
				 " 'host': {'node_id': 1, 'name': 'host1', 'address': '10.0.0.1'}}}");
		else
			world_do("{'host_add': {'host': {'node_id': %u, 'name': 'host%u', 'address': '10.0.0.%u'}}}", i, i, i);
		world_do("{'host_state': {'name': 'host%u', 'state': 'online', 'incarnation': 1, 'reason': 'it is here'}}", i);
		agent_start(&w->s, h);
		agent_connected(&w->s, h, true);
	}
	world_do("{'pool_add': {'pool': {'name': 'p', 'type': 'dir', 'target': '/p', 'shared': true}}}");
	sim_after(&w->s, 0, NULL, LIFE_POWER, heartbeats, 0, NULL, NULL);
	sim_after(&w->s, 0, NULL, LIFE_POWER, leader_looks, 0, NULL, NULL);
	world_ms(2000);
}

static void world_end(void)
{
	struct sim *s = &world->s;

	for (unsigned i = 1; i <= s->o.hosts; i++)
		agent_free(s, &s->host[i]);
	sim_events_drop(s);
	if (world->held)
		gantry__command__free_unpacked(world->held, NULL);
	fences_free(s);
	store_free(s);
	check_domains_free(s);
	fixture_end(&world->f);
	free(world);
	world = NULL;
}

/* ---- looking ---- */

static const char *uuid_of(unsigned n)
{
	static char text[37];

	snprintf(text, sizeof(text), "00000000-0000-4000-8000-%012u", n);
	return text;
}

/* Volume and domain vm<n>, started on a host. */
static void world_domain_of(unsigned n, const char *host, bool ha)
{
	world_do("{'volume_create': {'volume': {'pool': 'p', 'name': 'vol%u', 'size_bytes': 1073741824, 'format': 'raw', 'host': 'host1'}}}", n);
	world_ms(1500);
	world_do("{'domain_create': {'spec': {'name': 'vm%u', 'uuid': '%s', 'memory_bytes': 1073741824, 'vcpus': 1,"
		 " 'disks': [{'vdev': 'xvda', 'pool': 'p', 'volume': 'vol%u', 'format': 'raw'}]}, 'no_ha': %s}}", n, uuid_of(n), n, ha ? "false" : "true");
	world_do("{'domain_start': {'domain': 'vm%u', 'host': '%s'}}", n, host);
	world->places = false;
	world_do("{'domain_place': {'uuid': '%s', 'host': '%s', 'generation': 1, 'reason': 'wanted'}}", uuid_of(n), host);
	world->places = true;
	world_ms(3000);
}

static void world_domain(unsigned n, const char *host)
{
	world_domain_of(n, host, true);
}

static struct sim_vm *vm_at(unsigned host, unsigned n)
{
	for (struct sim_qemu *q = qemu_first(&world->s.host[host]); q; q = q->next)
		if (!strcmp(q->uuid, uuid_of(n)))
			return vm_of(q);
	return NULL;
}

static const Gantry__Domain *dom(unsigned n)
{
	return model_domain(&world->f.m, uuid_of(n));
}

static void assert_well(void)
{
	if (world->r.violation[0])
		fail_msg("%s", world->r.violation);
}

static void assert_settled(void)
{
	assert_well();
	check_domains_settled(&world->s, world->f.m.state);
	assert_well();
}

static void assert_runs(unsigned n, unsigned host)
{
	assert_well();
	if (strcmp(dom(n)->host, world->s.host[host].name) != 0 || dom(n)->state != STATE(RUNNING))
		fail_msg("vm%u is in state %d on '%s': %s", n, dom(n)->state, dom(n)->host, dom(n)->reason);
	assert_non_null(vm_at(host, n));
	assert_int_equal(vm_at(host, n)->q.phase, QEMU_RUNNING);
	assert_settled();
}

static bool world_wait(bool (*is_so)(void), uint64_t ms)
{
	/* Some stages last less than a millisecond. */
	for (uint64_t end = world->s.now_us + ms * MS; world->s.now_us < end && !world->r.violation[0]; sim_run_until(&world->s, world->s.now_us + 50))
		if (is_so())
			return true;
	return is_so();
}
