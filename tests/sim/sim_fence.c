/* Power controllers. What a controller has been told to do it does, whether or not anybody still waits for the answer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_agent_internal.h"

#define WATCHDOG_LOOK_US (500 * MS)

struct fence {
	uint64_t no;
	struct sim_host *by, *target;
	enum fence_mood mood;      /* as it was when the run began */
	bool answers;              /* nobody has cancelled it */
	bool was_healthy, by_time, asked;
	uint64_t life;             /* of the clusterd that asked */
	struct fence *next;
};

struct sim_fences {
	enum fence_mood mood[SIM_HOSTS_MAX + 1];
	uint64_t fed_us[SIM_HOSTS_MAX + 1];    /* watchdogs: 0 never */
	bool off_by_us[SIM_HOSTS_MAX + 1];     /* and to be powered on again */
	struct fence *runs;
};

void fences_free(struct sim *s)
{
	if (!s->fences)
		return;
	while (s->fences->runs) {
		struct fence *f = s->fences->runs;

		s->fences->runs = f->next;
		free(f);
	}
	free(s->fences);
	s->fences = NULL;
}

void fence_set_mood(struct sim *s, struct sim_host *target, enum fence_mood mood)
{
	s->fences->mood[target->id] = mood;
}

static struct fence *fence_find(struct sim *s, uint64_t no)
{
	for (struct fence *f = s->fences->runs; f; f = f->next)
		if (f->no == no)
			return f;
	return NULL;
}

struct answer { int rc; char target[16], text[96]; bool by_time; };

static void on_answer(struct sim *s, struct sim_host *by, uint64_t arg, void *p)
{
	struct answer *a = p;

	host_fence_answer(s, by, a->target, a->rc, a->text, a->by_time);
	free(a);
}

static void answer_later(struct sim *s, struct sim_host *by, const char *target, int rc, const char *text, bool by_time)
{
	struct answer *a = mem_alloc(sizeof(*a));

	a->rc = rc;
	a->by_time = by_time;
	snprintf(a->target, sizeof(a->target), "%s", target);
	snprintf(a->text, sizeof(a->text), "%s", text);
	sim_after(s, 1 * MS, by, LIFE_CLUSTERD, on_answer, 0, a, free);
}

static void fence_end(struct sim *s, struct fence *f, int rc, const char *text)
{
	struct fence **p = &s->fences->runs;

	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	sim_trace(s, "fence of %s by %s: %s%s", f->target->name, f->by->name, text, f->answers ? "" : " (nobody waits for it)");
	if (f->answers && f->by->powered && f->by->life[LIFE_CLUSTERD] == f->life)
		answer_later(s, f->by, f->target->name, rc, text, f->by_time);
	free(f);
}

/* A person, the controller's own policy, or the second half of a reboot. */
static void power_returns(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	struct sim_host *h = &s->host[arg];

	if (!s->fences->off_by_us[arg])
		return;
	s->fences->off_by_us[arg] = false;
	if (!h->powered)
		host_power_on(s, h);
}

static void turn_off(struct sim *s, struct fence *f)
{
	struct sim_host *t = f->target;

	/* What was taken back and carried out all the same, late, was nobody's decision; what a person wanted is his. */
	if (f->answers && !f->asked)
		check_fenced(s, f->by, t, f->was_healthy);
	s->r->fences++;
	sim_hash(s, (uint64_t)7 << 56 ^ t->id);
	host_power_off(s, t, "fenced");
	s->fences->off_by_us[t->id] = true;
	sim_after(s, sim_between(s, 5 * SECOND, 60 * SECOND), NULL, LIFE_POWER, power_returns, t->id, NULL, NULL);
}

static void on_watchdog_waited(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	struct fence *f = fence_find(s, arg);

	if (f)
		fence_end(s, f, 0, "its watchdog was waited for");
}

static void on_controller(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	struct fence *f = fence_find(s, arg);
	char proof[96];

	if (!f)
		return;
	/* The second level: its own watchdog, and time. */
	if ((f->mood == FENCE_FAILS || !host_has_power_control(f->target)) && host_has_watchdog(f->target)) {
		f->by_time = true;
		sim_after(s, DEADLINE_PROOF_BY_TIME_MS * MS, NULL, LIFE_POWER, on_watchdog_waited, arg, NULL, NULL);
		return;
	}
	if (f->mood == FENCE_FAILS) {
		fence_end(s, f, -EIO, "the power controller does not answer");
		return;
	}
	snprintf(proof, sizeof(proof), "fence_sim: %s off confirmed", f->target->name);
	if (!f->target->powered) {
		snprintf(proof, sizeof(proof), "fence_sim: %s already off", f->target->name);
	} else if (f->mood == FENCE_LIES) {
		f->target->lied_about = true;
		sim_trace(s, "fence of %s: its controller LIES: it stays on", f->target->name);
	} else {
		turn_off(s, f);
	}
	fence_end(s, f, 0, proof);
}

/* The command has to get there first. */
static void on_sent(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	struct fence *f = fence_find(s, arg);
	uint64_t takes;

	if (!f)
		return;
	if (host_has_power_control(f->target) && !net_reaches_store(s, f->by)) {
		f->mood = FENCE_FAILS;
		takes = sim_between(s, 2 * SECOND, 10 * SECOND);
	} else if (f->mood == FENCE_SLOW) {
		takes = sim_between(s, 300 * MS, 40 * SECOND);
	} else if (f->mood == FENCE_FAILS) {
		takes = sim_between(s, 500 * MS, 10 * SECOND);
	} else {
		takes = sim_between(s, 50 * MS, 300 * MS);
	}
	sim_after(s, takes, NULL, LIFE_POWER, on_controller, arg, NULL, NULL);
}

void fence_run(struct sim *s, struct sim_host *by, const char *target, bool asked)
{
	struct sim_host *t = sim_host_by_name(s, target);
	struct fence *f;

	if (!t) {
		answer_later(s, by, target, -ENOENT, "no such host", false);
		return;
	}
	/* One at a time for a host (clusterd/daemon/fence_runner.c). */
	for (f = s->fences->runs; f; f = f->next)
		if (f->by == by && f->target == t && f->answers && f->life == by->life[LIFE_CLUSTERD])
			return;
	f = mem_alloc(sizeof(*f));
	f->no = ++s->seq;
	f->by = by;
	f->target = t;
	f->mood = s->fences->mood[t->id];
	f->answers = true;
	f->asked = asked;
	f->was_healthy = check_fence_asked(s, t);
	f->life = by->life[LIFE_CLUSTERD];
	f->next = s->fences->runs;
	s->fences->runs = f;
	sim_trace(s, "fence of %s is asked for by %s", t->name, by->name);
	sim_after(s, 1 * MS, NULL, LIFE_POWER, on_sent, f->no, NULL, NULL);
}

void fence_cancel_all(struct sim *s, struct sim_host *by)
{
	for (struct fence *f = s->fences->runs; f; f = f->next)
		if (f->by == by)
			f->answers = false;
}

/* ---- the hosts' own watchdogs ---- */

bool host_has_watchdog(const struct sim_host *h)
{
	return h->sim && h->sim->o.watchdogs && h->id % 2;
}

bool host_has_power_control(const struct sim_host *h)
{
	return !host_has_watchdog(h) || h->sim->o.seed % 2 || h->id != 3;
}

void watchdog_feed(struct sim *s, const struct sim_host *h)
{
	if (host_has_watchdog(h))
		s->fences->fed_us[h->id] = s->now_us;
}

/* Outside of the host: it goes on while that is frozen. */
static void watchdogs_look(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_host *h = &s->host[i];
		uint64_t fed = s->fences->fed_us[i];

		/* Armed by the first feed since the power came. */
		if (!host_has_watchdog(h) || !h->powered || !fed || fed < h->powered_us || s->now_us - fed < DEADLINE_WATCHDOG_MS * MS)
			continue;
		sim_trace(s, "%s: its watchdog fires", h->name);
		host_power_off(s, h, "reset by its watchdog");
		s->fences->off_by_us[i] = true;
		sim_after(s, sim_between(s, 3 * SECOND, 20 * SECOND), NULL, LIFE_POWER, power_returns, i, NULL, NULL);
	}
	sim_after(s, WATCHDOG_LOOK_US, NULL, LIFE_POWER, watchdogs_look, 0, NULL, NULL);
}

void fences_new(struct sim *s)
{
	s->fences = mem_alloc(sizeof(*s->fences));
	sim_after(s, WATCHDOG_LOOK_US, NULL, LIFE_POWER, watchdogs_look, 0, NULL, NULL);
}
