/* The agent's process: goals come in, a pass over what has changed asks agent/core, reports go out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_agent_internal.h"

#define TICK_US (500 * MS)
#define TICK_MIGRATING_US (250 * MS)
#define REPORT_EVERY_US SECOND
#define POOL_LOOK_US (10 * SECOND)
#define REPORT_MIGRATING_US (250 * MS)
#define PAST_AFTER_US (20 * SECOND)
#define SIM_CPUS 100000 /* memory is what is scarce */

/* ---- events of the process ---- */

bool agent_parks(struct sim_agent *a, sim_fn fn, uint64_t arg, void *p, void (*drop)(void *))
{
	if (!a->hung)
		return false;
	if (a->n_parked == a->cap_parked) {
		a->cap_parked = a->cap_parked ? 2 * a->cap_parked : 32;
		a->parked = mem_realloc(a->parked, a->cap_parked * sizeof(*a->parked));
	}
	a->parked[a->n_parked++] = (struct sim_agent_event){fn, arg, p, drop};
	return true;
}

void agent_after(struct sim *s, struct sim_agent *a, uint64_t us, sim_fn fn, uint64_t arg, void *p)
{
	sim_after(s, us, a->host, LIFE_AGENT, fn, arg, p, p ? free : NULL);
}

static void parked_drop(struct sim_agent *a)
{
	for (size_t i = 0; i < a->n_parked; i++)
		if (a->parked[i].p)
			a->parked[i].drop(a->parked[i].p);
	free(a->parked);
	a->parked = NULL;
	a->n_parked = a->cap_parked = 0;
}

/* ---- volumes ---- */

static struct sim_task *task_find(const struct sim_agent *a, uint64_t job_id, bool deleting)
{
	for (struct sim_task *t = a->tasks; t; t = t->next)
		if (t->job_id == job_id && t->deleting == deleting)
			return t;
	return NULL;
}

static bool task_was_made(const struct sim_agent *a, uint64_t job_id)
{
	for (size_t i = 0; i < a->n_made; i++)
		if (a->made[i] == job_id)
			return true;
	return false;
}

static void task_note_made(struct sim_agent *a, uint64_t job_id)
{
	const size_t room = sizeof(a->made) / sizeof(*a->made);

	if (a->n_made == room) {
		memmove(a->made, a->made + 1, (room - 1) * sizeof(*a->made));
		a->n_made--;
	}
	a->made[a->n_made++] = job_id;
}

static void task_done(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_agent *a = h->agent;
	struct sim_task *t;

	AGENT_EVENT(task_done);
	for (t = a->tasks; t && t->no != arg; t = t->next)
		;
	if (!t)
		return;
	if (t->deleting)
		t->rc = store_delete(s, h, t->pool, t->name);
	else if (task_was_made(a, t->job_id))
		t->rc = 0;
	else
		t->rc = store_make(s, h, t->pool, t->name);
	if (t->rc == 0 && !t->deleting)
		task_note_made(a, t->job_id);
	t->done = true;
	sim_trace(s, "%s: volume %s/%s %s: %s", h->name, t->pool, t->name, t->deleting ? "is deleted" : "is made", t->rc ? strerror(-t->rc) : "done");
	a->report_now = true;
	agent_wake(s, a);
}

static void task_take_goal(struct sim *s, struct sim_agent *a, const Gantry__Volume *v)
{
	bool deleting = v->state == GANTRY__VOLUME_STATE__VOLUME_STATE_DELETING;
	struct sim_task *t = task_find(a, v->job_id, deleting);

	if (!t) {
		t = mem_alloc(sizeof(*t));
		t->no = ++s->seq;
		t->job_id = v->job_id;
		t->deleting = deleting;
		t->size_bytes = v->size_bytes;
		snprintf(t->pool, sizeof(t->pool), "%s", v->pool);
		snprintf(t->name, sizeof(t->name), "%s", v->name);
		t->next = a->tasks;
		a->tasks = t;
		agent_after(s, a, sim_between(s, 50 * MS, 500 * MS), task_done, t->no, NULL);
	}
	t->goal_seen = a->goals_no;
}

static void tasks_forget(struct sim_agent *a, bool all)
{
	for (struct sim_task **p = &a->tasks; *p;) {
		struct sim_task *t = *p;

		if (!all && (!t->done || t->goal_seen == a->goals_no)) {
			p = &t->next;
			continue;
		}
		*p = t->next;
		free(t);
	}
}

/* ---- reports ---- */

static void report_domain(const struct sim *s, const struct sim_domain *d, Gantry__AgentReport *report)
{
	Gantry__DomainReport *r = PB_NEW(Gantry__DomainReport, gantry__domain_report__init);
	struct domain_word word = domain_word(&(struct domain_facts){
		.goal = &d->goal, .actual = d->actual, .generation = d->generation, .end = d->end, .has_run = d->has_run,
		.ended_generation = d->ended_generation, .ended_state = d->ended_state,
	});

	pb_set_string(&r->uuid, d->shape.uuid);
	r->generation = d->goal.generation;
	r->state = word.state;
	if (word.of == WORD_OF_END) {
		pb_set_string(&r->reason, d->ended_reason);
		r->guest_shutdown = d->ended_guest_shutdown;
	} else if (word.of == WORD_OF_OLDER) {
		pb_set_string(&r->reason, "an older QEMU of the domain is being ended");
	} else if (d->trouble[0]) {
		pb_set_string(&r->reason, d->trouble);
	}
	r->ready = word.state == STATE(RUNNING) && s->now_us >= d->ready_at;
	if (word.of != WORD_OF_END && d->vm && !d->vm_dead && d->generation == d->goal.generation) {
		r->pid = (int32_t)d->vm;
		pb_set_string(&r->accel, "tcg");
	}
	PB_APPEND(report, domains, r);
}

static void report_task(const struct sim_task *t, Gantry__AgentReport *report)
{
	Gantry__VolumeReport *r = PB_NEW(Gantry__VolumeReport, gantry__volume_report__init);

	pb_set_string(&r->pool, t->pool);
	pb_set_string(&r->name, t->name);
	r->job_id = t->job_id;
	r->ok = t->rc == 0;
	r->size_bytes = t->size_bytes;
	if (t->rc)
		pb_set_string(&r->reason, strerror(-t->rc));
	PB_APPEND(report, volumes, r);
}

static Gantry__Host *report_host(const struct sim_agent *a)
{
	Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);

	pb_set_string(&h->name, a->host->name);
	h->memory_bytes = a->host->memory_bytes;
	h->cpus = SIM_CPUS;
	pb_set_string(&h->watchdog, host_has_watchdog(a->host) ? "/dev/watchdog" : "");
	pb_set_string(&h->accel, "tcg");
	h->agent_connected = true;
	return h;
}

/* As the real one does it: a look every ten seconds, whose verdict stands until the next. */
static void report_pools(struct sim *s, struct sim_agent *a, Gantry__AgentReport *report)
{
	Gantry__PoolReport *r;

	if (!a->pool[0])
		return;
	if (!a->pool_looked_us || s->now_us - a->pool_looked_us >= POOL_LOOK_US) {
		a->pool_looked_us = s->now_us;
		a->pool_lost = !net_reaches_store(s, a->host);
	}
	r = PB_NEW(Gantry__PoolReport, gantry__pool_report__init);
	pb_set_string(&r->name, a->pool);
	r->checked = true;
	r->ok = !a->pool_lost;
	PB_APPEND(report, pools, r);
}

static void report_send(struct sim *s, struct sim_agent *a)
{
	Gantry__AgentReport *report = PB_NEW(Gantry__AgentReport, gantry__agent_report__init);
	uint64_t used = 0;

	report->host = report_host(a);
	report->self_fenced = a->fenced;
	for (const struct sim_domain *d = a->domains; d; d = d->next)
		used += d->actual != ACTUAL_ABSENT ? d->shape.memory_bytes : 0;
	report->memory_free_bytes = a->host->memory_bytes > used ? a->host->memory_bytes - used : 0;
	if (a->has_goals) {
		report->goals_index = a->index;
		for (const struct sim_domain *d = a->domains; d; d = d->next)
			if (d->has_goal)
				report_domain(s, d, report);
	}
	migrations_report(a, report);
	report_pools(s, a, report);
	for (const struct sim_task *t = a->tasks; t; t = t->next)
		if (t->done)
			report_task(t, report);
	a->report_now = false;
	a->reported_us = s->now_us;
	host_agent_report(s, a->host, report);
}

static void report_if_due(struct sim *s, struct sim_agent *a, bool tick)
{
	bool migrating = tick && migrations_active(a);
	uint64_t every = migrating ? REPORT_MIGRATING_US : REPORT_EVERY_US, next = migrating ? TICK_MIGRATING_US : TICK_US;

	if (!a->connected)
		return;
	/* The next tick would be too late. */
	if (a->report_now || (tick && s->now_us - a->reported_us + next > every))
		report_send(s, a);
}

/* ---- the pass ---- */

static void fence(struct sim *s, struct sim_agent *a)
{
	bool fenced = selffence_tick(&a->selffence, sim_clock_ms(s, a->host));

	if (fenced == a->fenced)
		return;
	a->fenced = fenced;
	a->report_now = true;
	sim_trace(s, "%s: agent: %s", a->host->name, fenced ? "no quorum for too long: HA domains are ended" : "quorum is back");
	for (struct sim_domain *d = a->domains; d; d = d->next)
		d->dirty = true;
	agent_wake(s, a);
}

static void forget(struct sim_agent *a)
{
	for (struct sim_domain **p = &a->domains; *p;) {
		struct sim_domain *d = *p;

		if (d->has_goal || d->actual != ACTUAL_ABSENT || domain_pending(d) || d->vm || migration_listed(a, d) ||
		    (!a->has_goals && d->ended_generation)) {
			p = &d->next;
			continue;
		}
		*p = d->next;
		if (a->domains_end == &d->next)
			a->domains_end = p;
		domain_ended_forget(d);
		domain_free(d);
	}
}

static void pass(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_agent *a = h->agent;

	AGENT_EVENT(pass);
	a->pass_soon = false;
	fence(s, a);
	migrations_update(s, a);
	for (struct sim_domain *d = a->domains; d; d = d->next) {
		if (!d->dirty)
			continue;
		d->dirty = false;
		domain_pass(s, d);
	}
	report_if_due(s, a, false);
	forget(a);
}

void agent_wake(struct sim *s, struct sim_agent *a)
{
	if (a->pass_soon)
		return;
	a->pass_soon = true;
	agent_after(s, a, 50, pass, 0, NULL);
}

static void past_drop(struct sim_agent *a)
{
	if (a->past)
		gantry__agent_goals__free_unpacked(a->past, NULL);
	a->past = NULL;
}

/* A clusterd that fell behind. The log keeps one from giving goals at all, so that the agent's own guard would never be tried. */
static void past_comes_back(struct sim *s, struct sim_agent *a)
{
	const Gantry__AgentGoals *g = a->past;

	if (!g || s->now_us - a->past_us < PAST_AFTER_US || strcmp(g->cluster_uuid, a->cluster) != 0 ||
	    g->epoch > a->epoch || (g->epoch == a->epoch && g->index >= a->index))
		return;
	agent_take_goals(s, a->host, g);
	past_drop(a);
}

static void tick(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_agent *a = h->agent;

	AGENT_EVENT(tick);
	fence(s, a);
	check_selffence(s, h);
	if (!h->agent->fenced || h->agent->disarmed)
		watchdog_feed(s, h);
	past_comes_back(s, a);
	report_if_due(s, a, true);
	agent_after(s, a, migrations_active(a) ? TICK_MIGRATING_US : TICK_US, tick, 0, NULL);
}

/* ---- goals ---- */

static void goals_noted(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_agent *a = h->agent;

	AGENT_EVENT(goals_noted);
	snprintf(a->disk_cluster, sizeof(a->disk_cluster), "%s", a->cluster);
	a->disk_epoch = a->epoch;
	a->disk_index = a->index;
}

static bool text_changes(char *to, size_t size, const char *from)
{
	if (!strncmp(to, from, size - 1))
		return false;
	snprintf(to, size, "%s", from);
	return true;
}

static void take_domain(struct sim *s, struct sim_agent *a, const Gantry__DomainGoal *g)
{
	uint64_t key = shape_key(g->spec->uuid);
	struct sim_domain *d = domain_find(a, g->spec->uuid, key);
	bool destroy = !strcmp(g->stop_how, "destroy"), changed;

	if (!d || !d->has_goal) {
		struct sim_shape shape;

		shape_of(s, g->spec, &shape);
		d = domain_get(s, a, &shape);
	}
	changed = !d->has_goal || d->goal.generation != g->generation || d->goal.goal != g->goal || d->goal.ha != g->ha ||
		  destroy != !strcmp(d->goal.stop_how, "destroy") || d->goal.lease_from_generation != g->lease_from_generation;
	d->policy = *g->policy;
	d->policy.ready_address = (char *)"";
	d->goal.policy = &d->policy;
	changed |= text_changes(d->lease_from, sizeof(d->lease_from), g->lease_from);
	changed |= text_changes(d->lease_proof, sizeof(d->lease_proof), g->lease_proof);
	d->has_goal = true;
	d->goal_seen = a->goals_no;
	d->goal.generation = g->generation;
	d->goal.goal = g->goal;
	d->goal.ha = g->ha;
	d->goal.stop_how = destroy ? (char *)"destroy" : (char *)"shutdown";
	d->goal.lease_from = d->lease_from;
	d->goal.lease_from_generation = g->lease_from_generation;
	d->goal.lease_proof = d->lease_proof;
	d->dirty |= changed;
}

static void goals_drop(void *p)
{
	gantry__agent_goals__free_unpacked(p, NULL);
}

static void take_later(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	agent_take_goals(s, h, p);
	goals_drop(p);
}

static void obey(struct sim *s, struct sim_agent *a, const Gantry__AgentGoals *goals)
{
	bool first = !a->has_goals;

	a->disarmed = goals->disarmed;
	snprintf(a->pool, sizeof(a->pool), "%s", goals->n_pools ? goals->pools[0]->name : "");

	check_goals_obeyed(s, a->host, goals);
	if (!a->past) {
		a->past = pb_clone(goals);
		a->past_us = s->now_us;
	}
	if (strcmp(a->cluster, goals->cluster_uuid) || a->epoch != goals->epoch || a->index != goals->index)
		agent_after(s, a, sim_between(s, 2 * MS, 30 * MS), goals_noted, 0, NULL);
	snprintf(a->cluster, sizeof(a->cluster), "%s", goals->cluster_uuid);
	a->epoch = goals->epoch;
	a->index = goals->index;
	a->has_goals = true;
	a->goals_no++;
	for (size_t i = 0; i < goals->n_domains; i++)
		take_domain(s, a, goals->domains[i]);
	for (struct sim_migration *m = a->migrations; m; m = m->next)
		m->listed = false;
	for (size_t i = 0; i < goals->n_migrations; i++)
		migration_take_goal(s, a, goals->migrations[i]);
	for (size_t i = 0; i < goals->n_volumes; i++)
		task_take_goal(s, a, goals->volumes[i]->volume);
	tasks_forget(a, false);
	for (struct sim_domain *d = a->domains; d; d = d->next) {
		if (d->has_goal && d->goal_seen != a->goals_no) {
			d->has_goal = false;
			d->dirty = true;
		}
		d->dirty |= first;
	}
	a->report_now = true;
	agent_wake(s, a);
}

void agent_take_goals(struct sim *s, struct sim_host *h, const Gantry__AgentGoals *goals)
{
	struct sim_agent *a = h->agent;
	struct goals_order known;

	if (!agent_is_running(h) || strcmp(goals->host, h->name) != 0)
		return;
	if (a->hung) {
		agent_parks(a, take_later, 0, pb_clone(goals), goals_drop);
		return;
	}
	known = (struct goals_order){a->cluster[0] ? a->cluster : NULL, a->epoch, a->index};
	if (goals_order_older(&known, goals)) {
		sim_trace(s, "%s: agent: goals of epoch %llu index %llu are refused: older than %llu/%llu", h->name, (unsigned long long)goals->epoch,
			  (unsigned long long)goals->index, (unsigned long long)a->epoch, (unsigned long long)a->index);
		return;
	}
	obey(s, a, goals);
}

static void quorum_later(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	agent_take_quorum(s, h, arg & 1, arg >> 1);
}

void agent_take_quorum(struct sim *s, struct sim_host *h, bool quorate, uint64_t epoch)
{
	struct sim_agent *a = h->agent;
	Gantry__AgentQuorum quorum = GANTRY__AGENT_QUORUM__INIT;
	struct goals_order known;

	/* What was sent to an agent that hangs waits in its socket, and counts when it is read. */
	if (!agent_is_running(h) || agent_parks(a, quorum_later, epoch << 1 | quorate, NULL, NULL))
		return;
	quorum.quorate = quorate;
	quorum.epoch = epoch;
	known = (struct goals_order){a->cluster[0] ? a->cluster : NULL, a->epoch, a->index};
	if (!goals_order_quorum_counts(&known, a->has_goals, &quorum))
		return;
	selffence_heartbeat(&a->selffence, quorate, sim_clock_ms(s, h));
	if (quorate) {
		a->last_quorum_ms = sim_clock_ms(s, h);
		check_quorum_heard(s, h);
	}
	if (quorate && a->fenced)
		agent_wake(s, a);
}

static void connected_later(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	agent_connected(s, h, arg != 0);
}

void agent_connected(struct sim *s, struct sim_host *h, bool connected)
{
	struct sim_agent *a = h->agent;

	if (!agent_is_running(h) || agent_parks(a, connected_later, connected, NULL, NULL) || a->connected == connected)
		return;
	a->connected = connected;
	selffence_clusterd(&a->selffence, connected, sim_clock_ms(s, h));
	if (!connected)
		return;
	a->report_now = true;
	agent_wake(s, a);
}

/* ---- life ---- */

bool agent_is_running(const struct sim_host *h)
{
	return h->agent && h->agent->running;
}

void agent_start(struct sim *s, struct sim_host *h)
{
	struct sim_agent *a = h->agent;
	uint64_t now = sim_clock_ms(s, h);

	if (agent_is_running(h))
		return;
	if (!a) {
		a = h->agent = mem_alloc(sizeof(*a));
		a->host = h;
	}
	a->running = true;
	a->domains_end = &a->domains;
	snprintf(a->cluster, sizeof(a->cluster), "%s", a->disk_cluster);
	a->epoch = a->disk_epoch;
	a->index = a->disk_index;
	if (!a->last_quorum_ms)
		check_quorum_heard(s, h); /* none since the power came: nothing is noted, the countdown begins here */
	selffence_init(&a->selffence, a->last_quorum_ms && a->last_quorum_ms < now ? a->last_quorum_ms : now);
	if (host_has_watchdog(h))
		selffence_be_strict(&a->selffence);
	selffence_clusterd(&a->selffence, false, now);
	sim_trace(s, "%s: agent begins", h->name);
	domain_adopt_all(s, a);
	agent_after(s, a, sim_between(s, 1 * MS, 500 * MS), tick, 0, NULL);
	agent_wake(s, a);
}

/* The process is gone, its memory with it. */
static void process_ends(struct sim_host *h)
{
	struct sim_agent *a = h->agent;

	h->life[LIFE_AGENT]++;
	while (a->domains) {
		struct sim_domain *d = a->domains;

		a->domains = d->next;
		domain_free(d);
	}
	migrations_free(a);
	tasks_forget(a, true);
	parked_drop(a);
	a->running = a->hung = a->connected = a->has_goals = a->fenced = a->pass_soon = a->report_now = false;
	a->goals_no = a->pool_looked_us = 0;
	a->disarmed = false;
	a->pool[0] = '\0';
}

void agent_stop(struct sim *s, struct sim_host *h)
{
	if (!agent_is_running(h))
		return;
	sim_trace(s, "%s: agent dies", h->name);
	process_ends(h);
	vm_feeder_gone(s, h);
}

static void notes_lost(struct sim_agent *a)
{
	while (a->ended) {
		struct sim_ended *e = a->ended;

		a->ended = e->next;
		free(e);
	}
	while (a->notes) {
		struct sim_note *n = a->notes;

		a->notes = n->next;
		free(n);
	}
}

void agent_power_lost(struct sim *s, struct sim_host *h)
{
	if (!h->agent)
		return;
	process_ends(h);
	vm_all_lost(s, h);
	notes_lost(h->agent);
	h->agent->last_quorum_ms = 0;
	h->lied_about = false; /* nothing is left of what was lied about */
}

void agent_hang(struct sim *s, struct sim_host *h, bool hung)
{
	struct sim_agent *a = h->agent;

	if (!agent_is_running(h) || a->hung == hung)
		return;
	a->hung = hung;
	sim_trace(s, "%s: agent %s", h->name, hung ? "hangs" : "goes on");
	if (hung)
		return;
	for (size_t i = 0; i < a->n_parked; i++)
		sim_after(s, 10 + i, h, LIFE_AGENT, a->parked[i].fn, a->parked[i].arg, a->parked[i].p, a->parked[i].drop);
	a->n_parked = 0;
}

void agent_free(struct sim *s, struct sim_host *h)
{
	if (!h->agent)
		return;
	process_ends(h);
	vm_all_lost(s, h);
	notes_lost(h->agent);
	past_drop(h->agent);
	free(h->agent);
	h->agent = NULL;
}
