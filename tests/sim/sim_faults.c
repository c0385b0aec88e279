/* Faults, by profile. The whole list of a run is drawn beforehand from the seed alone, so that faults can be left out of it one by
 * one (--shrink) while the others stay what they were. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "clusterd/core/node.h"
#include "lib/buf.h"

const char *const sim_fault_names[FAULT_KINDS] = {
	"power_loss", "all_down", "frozen_host", "partition", "one_way", "flap", "corosync_crash",
	"clusterd_crash", "clusterd_hung", "agent_crash", "agent_hung", "rolling_restart",
	"slow_disk", "full_disk", "lost_disk", "clock",
	"fence_slow", "fence_fails", "fence_lies",
	"qemu_crash", "qemu_hang", "qemu_start_fails", "store_cut", "migration_death"};

static const struct sim_profile profiles[] = {
	{"calm", 0.02, {[FAULT_POWER_LOSS] = 4, [FAULT_CLUSTERD_CRASH] = 4, [FAULT_AGENT_CRASH] = 4, [FAULT_SLOW_DISK] = 2,
			[FAULT_QEMU_CRASH] = 4, [FAULT_ROLLING_RESTART] = 1, [FAULT_CLOCK] = 1, [FAULT_FLAP] = 2}},
	{"rough", 0.08, {[FAULT_POWER_LOSS] = 8, [FAULT_ALL_DOWN] = 1, [FAULT_FROZEN_HOST] = 4, [FAULT_PARTITION] = 4, [FAULT_ONE_WAY] = 2,
			 [FAULT_FLAP] = 4, [FAULT_COROSYNC_CRASH] = 3, [FAULT_CLUSTERD_CRASH] = 5, [FAULT_CLUSTERD_HUNG] = 3, [FAULT_AGENT_CRASH] = 5,
			 [FAULT_AGENT_HUNG] = 2, [FAULT_ROLLING_RESTART] = 1, [FAULT_SLOW_DISK] = 3, [FAULT_FULL_DISK] = 1, [FAULT_LOST_DISK] = 1,
			 [FAULT_CLOCK] = 2, [FAULT_FENCE_SLOW] = 2, [FAULT_FENCE_FAILS] = 2, [FAULT_QEMU_CRASH] = 5, [FAULT_QEMU_HANG] = 2,
			 [FAULT_QEMU_START_FAILS] = 2, [FAULT_STORE_CUT] = 2, [FAULT_MIGRATION_DEATH] = 6}},
	{"hostile", 0.3, {[FAULT_POWER_LOSS] = 8, [FAULT_ALL_DOWN] = 2, [FAULT_FROZEN_HOST] = 6, [FAULT_PARTITION] = 6, [FAULT_ONE_WAY] = 4,
			  [FAULT_FLAP] = 5, [FAULT_COROSYNC_CRASH] = 4, [FAULT_CLUSTERD_CRASH] = 6, [FAULT_CLUSTERD_HUNG] = 5, [FAULT_AGENT_CRASH] = 6,
			  [FAULT_AGENT_HUNG] = 4, [FAULT_ROLLING_RESTART] = 1, [FAULT_SLOW_DISK] = 4, [FAULT_FULL_DISK] = 2, [FAULT_LOST_DISK] = 2,
			  [FAULT_CLOCK] = 2, [FAULT_FENCE_SLOW] = 4, [FAULT_FENCE_FAILS] = 4, [FAULT_FENCE_LIES] = 1, [FAULT_QEMU_CRASH] = 5,
			  [FAULT_QEMU_HANG] = 3, [FAULT_QEMU_START_FAILS] = 3, [FAULT_STORE_CUT] = 4, [FAULT_MIGRATION_DEATH] = 10}},
};

struct planned {
	enum sim_fault kind;
	uint64_t at_us, for_us, r1, r2, r3;
};

struct sim_faults {
	struct planned *list;
	size_t n;
	unsigned cuts;      /* partitions under way: the last one to end makes the cables whole */
};

const struct sim_profile *faults_profile(const char *name)
{
	for (size_t i = 0; i < sizeof(profiles) / sizeof(*profiles); i++)
		if (!strcmp(profiles[i].name, name))
			return &profiles[i];
	return NULL;
}

const char *faults_profile_names(void)
{
	return "calm, rough, hostile";
}

/* ---- the list ----------------------------------------------------------------------- */

static uint64_t draw(uint64_t *rng)
{
	*rng ^= *rng >> 12;
	*rng ^= *rng << 25;
	*rng ^= *rng >> 27;
	return *rng * 2685821657736338717ull >> 11;
}

static enum sim_fault draw_kind(const struct sim_profile *profile, uint64_t *rng)
{
	unsigned sum = 0, at;

	for (int i = 0; i < FAULT_KINDS; i++)
		sum += profile->weight[i];
	at = (unsigned)(draw(rng) % sum);
	for (int i = 0; i < FAULT_KINDS; i++) {
		if (at < profile->weight[i])
			return (enum sim_fault)i;
		at -= profile->weight[i];
	}
	return FAULT_POWER_LOSS;
}

/* Short ones are the rule; some last longer than any time-out of the cluster. */
static uint64_t draw_length(uint64_t *rng)
{
	uint64_t most = draw(rng) % 10 < 3 ? 50000000 : 5000000;

	return 10000 + draw(rng) % most;
}

static size_t plan(const struct sim_options *o, struct planned **ret)
{
	uint64_t rng = o->seed * 0xD1342543DE82EF95ull + 0x9E3779B97F4A7C15ull, end = (uint64_t)o->minutes * 60000000, at = 0;
	uint64_t gap = (uint64_t)(2e6 / o->profile->per_s);
	size_t n = 0, cap = 0;

	for (int i = 0; i < 8; i++)
		draw(&rng);
	for (;;) {
		struct planned f;

		/* Troubles come in rows: the next one may strike while the cluster still answers to the last. */
		at += draw(&rng) % (draw(&rng) % 4 ? gap * 4 / 3 : 100000u << draw(&rng) % 6);
		if (at >= end)
			return n;
		f = (struct planned){.kind = draw_kind(o->profile, &rng), .at_us = at, .for_us = draw_length(&rng)};
		f.r1 = draw(&rng);
		f.r2 = draw(&rng);
		f.r3 = draw(&rng);
		if (ret) {
			if (n == cap) {
				cap = cap ? 2 * cap : 256;
				*ret = mem_realloc(*ret, cap * sizeof(**ret));
			}
			(*ret)[n] = f;
		}
		n++;
	}
}

size_t faults_count(const struct sim_options *o)
{
	return plan(o, NULL);
}

/* ---- ends ------------------------------------------------------------------------------ */

static void power_returns(struct sim *s, struct sim_host *none, uint64_t id, void *p)
{
	host_power_on(s, &s->host[id]);
}

static void thaws(struct sim *s, struct sim_host *none, uint64_t id, void *p)
{
	if (s->host[id].frozen)
		sim_trace(s, "fault ends: %s goes on", s->host[id].name);
	host_thaw(s, &s->host[id]);
}

static void clusterd_returns(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	host_clusterd_start(s, h);
}

static void agent_returns(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	host_agent_start(s, h);
}

static void corosync_returns(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct node_event e = {.type = NODE_EVENT_CONNECTED, .now_ms = sim_clock_ms(s, h), .wall_ms = sim_wall_ms(s, h)};

	sim_trace(s, "fault ends: %s has a corosync again", h->name);
	group_corosync(s, h, true);
	if (host_node(h) && !node_is_stopped(host_node(h))) {
		node_step(host_node(h), &e);
		group_join(s, h);
	}
	group_changed(s, 100000 + sim_random(s, 500000));
}

static void clusterd_wakes(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	host_clusterd_hang(s, h, false);
}

static void agent_wakes(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	agent_hang(s, h, false);
}

static void cables_heal(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	if (--s->faults->cuts)
		return;
	sim_trace(s, "fault ends: all cables are whole");
	group_heal_cables(s);
	group_changed(s, 100000 + sim_random(s, 1000000));
}

static void disk_mends(struct sim *s, struct sim_host *none, uint64_t id, void *p)
{
	disk_set_mood(host_disk(&s->host[id]), DISK_WORKS);
}

static void store_returns(struct sim *s, struct sim_host *none, uint64_t id, void *p)
{
	s->host[id].store_cut = false;
}

static void fence_mends(struct sim *s, struct sim_host *none, uint64_t id, void *p)
{
	fence_set_mood(s, &s->host[id], FENCE_WORKS);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void lose_power(struct sim *s, struct sim_host *h, uint64_t for_us)
{
	host_power_off(s, h, "fault");
	sim_after(s, for_us, NULL, LIFE_POWER, power_returns, h->id, NULL, NULL);
}

static void power_goes(struct sim *s, struct sim_host *none, uint64_t id, void *p)
{
	lose_power(s, &s->host[id], 5000000);
}

static void crash_clusterd(struct sim *s, struct sim_host *h, uint64_t for_us)
{
	if (!host_node(h))
		return;
	host_clusterd_stop(s, h);
	sim_after(s, for_us, h, LIFE_POWER, clusterd_returns, 0, NULL, NULL);
}

static void crash_agent(struct sim *s, struct sim_host *h, uint64_t for_us)
{
	host_agent_stop(s, h);
	sim_after(s, for_us, h, LIFE_POWER, agent_returns, 0, NULL, NULL);
}

static void crash_corosync(struct sim *s, struct sim_host *h, uint64_t for_us)
{
	struct node_event e = {.type = NODE_EVENT_DISCONNECTED, .now_ms = sim_clock_ms(s, h), .wall_ms = sim_wall_ms(s, h)};

	if (!h->powered)
		return;
	host_ailing(s, h);
	group_corosync(s, h, false);
	e.u.disconnected.text = "corosync ended";
	if (host_node(h))
		node_step(host_node(h), &e);
	group_changed(s, 0);
	sim_after(s, for_us, h, LIFE_POWER, corosync_returns, 0, NULL, NULL);
}

static void cut_cables(struct sim *s, const struct planned *f, uint64_t for_us)
{
	unsigned parts = 2 + (f->r1 & 1);

	for (unsigned i = 1; i <= s->o.hosts; i++)
		for (unsigned k = 1; k <= s->o.hosts; k++)
			if ((f->r2 >> (i & 31)) % parts != (f->r2 >> (k & 31)) % parts)
				group_cut(s, &s->host[i], &s->host[k], true);
	s->faults->cuts++;
	sim_after(s, for_us, NULL, LIFE_POWER, cables_heal, 0, NULL, NULL);
	group_changed(s, 0);
}

static void cut_one_way(struct sim *s, struct sim_host *h, const struct planned *f)
{
	bool all = f->r2 & 1;

	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (all || i == 1 + f->r3 % s->o.hosts)
			group_cut(s, f->r2 & 2 ? h : &s->host[i], f->r2 & 2 ? &s->host[i] : h, i != h->id);
	s->faults->cuts++;
	sim_after(s, f->for_us, NULL, LIFE_POWER, cables_heal, 0, NULL, NULL);
	group_changed(s, 0);
}

static void rolling_restart(struct sim *s, struct sim_host *none, uint64_t id, void *p)
{
	struct sim_host *h = &s->host[id];

	if (h->powered && !h->frozen) {
		crash_clusterd(s, h, 200000 + sim_random(s, 800000));
		crash_agent(s, h, 200000 + sim_random(s, 800000));
	}
	if (id < s->o.hosts && !s->quiet)
		sim_after(s, 3000000, NULL, LIFE_POWER, rolling_restart, id + 1, NULL, NULL);
}

/* What a majority of the voters' disks holds is promised; so a majority keeps its own, by whoever's account of the voters. And none is lost
 * while hosts get their votes back: a member that does not know yet that the change was committed asks for a majority of the voters
 * before it too, and waits for a person if one of two has lost its log (docs/log.md). */
static bool may_lose_disk(const struct sim *s, const struct sim_host *h)
{
	unsigned lost = 1;

	for (unsigned i = 1; i <= s->o.hosts; i++)
		lost += &s->host[i] != h && disk_is_forgetful(host_disk(&s->host[i]));
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		const struct node *node = host_node(&s->host[i]);

		const size_t voters = node ? node_model(node)->state->n_voters : 0;

		if (voters && (voters < s->o.hosts || lost > (voters - 1) / 2))
			return false;
	}
	return lost <= (s->o.hosts - 1) / 2 && !disk_is_forgetful(host_disk(h));
}

static void lose_disk(struct sim *s, struct sim_host *h, uint64_t for_us)
{
	if (!may_lose_disk(s, h) || !host_node(h))
		return;
	sim_trace(s, "%s: its database is corrupt, and set aside", h->name);
	host_clusterd_stop(s, h);
	disk_lose(host_disk(h));
	sim_after(s, for_us / 10, h, LIFE_POWER, clusterd_returns, 0, NULL, NULL);
}

static void someone_in_a_migration_dies(struct sim *s, const struct planned *f)
{
	struct sim_host *source = NULL, *destination = NULL, *h;

	if (!migration_in_progress(s, &source, &destination))
		return;
	h = f->r1 & 1 ? source : destination;
	switch (f->r2 % 7) {
	case 5:
		/* Who sleeps through a move of the guest and its way back must not take the old copy for the new one. */
		agent_hang(s, source, true);
		sim_after(s, f->for_us + 5000000, source, LIFE_AGENT, agent_wakes, 0, NULL, NULL);
		break;
	case 6:
		agent_hang(s, source, true);
		sim_after(s, f->for_us + 5000000, source, LIFE_AGENT, agent_wakes, 0, NULL, NULL);
		sim_after(s, f->r3 % 3000000, NULL, LIFE_POWER, power_goes, destination->id, NULL, NULL);
		break;
	case 0:
		lose_power(s, h, f->for_us + 2000000);
		break;
	case 1:
		crash_clusterd(s, h, f->for_us / 8);
		break;
	case 2:
		crash_agent(s, h, f->for_us / 8);
		break;
	case 3:
		crash_agent(s, source, f->for_us / 8);
		crash_agent(s, destination, f->for_us / 8);
		break;
	default:
		group_cut(s, source, destination, true);
		group_cut(s, destination, source, true);
		s->faults->cuts++;
		sim_after(s, f->for_us, NULL, LIFE_POWER, cables_heal, 0, NULL, NULL);
		group_changed(s, 0);
	}
}

static void fault_of_host(struct sim *s, struct sim_host *h, const struct planned *f)
{
	switch (f->kind) {
	case FAULT_POWER_LOSS:
		lose_power(s, h, f->for_us + 1000000);
		break;
	case FAULT_FROZEN_HOST:
		host_freeze(s, h);
		sim_after(s, f->for_us, NULL, LIFE_POWER, thaws, h->id, NULL, NULL);
		break;
	case FAULT_COROSYNC_CRASH:
		crash_corosync(s, h, f->for_us / 8);
		break;
	case FAULT_CLUSTERD_CRASH:
		crash_clusterd(s, h, f->for_us / 8);
		break;
	case FAULT_CLUSTERD_HUNG:
		host_clusterd_hang(s, h, true);
		sim_after(s, f->for_us, h, LIFE_CLUSTERD, clusterd_wakes, 0, NULL, NULL);
		break;
	case FAULT_AGENT_CRASH:
		crash_agent(s, h, f->for_us / 8);
		break;
	case FAULT_AGENT_HUNG:
		if (!agent_is_running(h))
			break;
		agent_hang(s, h, true);
		sim_after(s, f->for_us, h, LIFE_AGENT, agent_wakes, 0, NULL, NULL);
		break;
	case FAULT_SLOW_DISK:
	case FAULT_FULL_DISK:
		disk_set_mood(host_disk(h), f->kind == FAULT_SLOW_DISK ? DISK_SLOW : DISK_FULL);
		sim_after(s, f->for_us, NULL, LIFE_POWER, disk_mends, h->id, NULL, NULL);
		break;
	case FAULT_LOST_DISK:
		lose_disk(s, h, f->for_us);
		break;
	case FAULT_CLOCK:
		h->wall_skew_ms += f->r2 & 1 ? 3600000 : -3600000;
		break;
	case FAULT_QEMU_START_FAILS:
		qemu_fault_starts_fail(s, h, f->for_us);
		break;
	case FAULT_STORE_CUT:
		h->store_cut = true;
		sim_after(s, f->for_us, NULL, LIFE_POWER, store_returns, h->id, NULL, NULL);
		break;
	default:
		break;
	}
}

static void fault_of_fence(struct sim *s, struct sim_host *h, const struct planned *f)
{
	enum fence_mood mood = f->kind == FAULT_FENCE_SLOW ? FENCE_SLOW : f->kind == FAULT_FENCE_FAILS ? FENCE_FAILS : FENCE_LIES;

	/* With two or four hosts half of them may go on alone on the word of a fence device: a liar there may cost acknowledged
	 * commands, which is an assumption that is broken, not a fault that is borne (docs/proof.md). */
	if (mood == FENCE_LIES && (s->o.hosts == 2 || s->o.hosts == 4))
		return;
	fence_set_mood(s, h, mood);
	sim_after(s, 3 * f->for_us, NULL, LIFE_POWER, fence_mends, h->id, NULL, NULL);
}

static void strike(struct sim *s, struct sim_host *none, uint64_t which, void *p);

static void fault(struct sim *s, struct sim_host *none, uint64_t which, void *p)
{
	const struct planned *f = &s->faults->list[which];

	if (which < s->o.n_without && s->o.without[which])
		return;
	/* Half of them under load: what matters is what was on its way. */
	if (f->r3 & 1) {
		users_burst(s, &s->host[1 + f->r3 / 2 % s->o.hosts], 6);
		users_burst(s, &s->host[1 + f->r3 / 64 % s->o.hosts], 6);
		sim_after(s, f->r3 / 4096 % 4000, NULL, LIFE_POWER, strike, which, NULL, NULL);
	} else {
		strike(s, NULL, which, NULL);
	}
}

static void strike(struct sim *s, struct sim_host *none, uint64_t which, void *p)
{
	const struct planned *f = &s->faults->list[which];
	struct sim_host *h = &s->host[1 + f->r1 % s->o.hosts];

	sim_trace(s, "fault %lu: %s, %s, for %lu ms", which, sim_fault_names[f->kind], h->name, f->for_us / 1000);
	s->r->faults[f->kind]++;
	switch (f->kind) {
	case FAULT_ALL_DOWN:
		for (unsigned i = 1; i <= s->o.hosts; i++)
			lose_power(s, &s->host[i], f->for_us / 4 + sim_random(s, 3000000));
		break;
	case FAULT_PARTITION:
		cut_cables(s, f, f->for_us);
		break;
	case FAULT_FLAP:
		cut_cables(s, f, f->for_us / 50);
		break;
	case FAULT_ONE_WAY:
		cut_one_way(s, h, f);
		break;
	case FAULT_ROLLING_RESTART:
		rolling_restart(s, NULL, 1, NULL);
		break;
	case FAULT_FENCE_SLOW:
	case FAULT_FENCE_FAILS:
	case FAULT_FENCE_LIES:
		fault_of_fence(s, h, f);
		break;
	case FAULT_QEMU_CRASH:
		qemu_fault_crash(s);
		break;
	case FAULT_QEMU_HANG:
		qemu_fault_hang(s);
		break;
	case FAULT_MIGRATION_DEATH:
		someone_in_a_migration_dies(s, f);
		break;
	default:
		fault_of_host(s, h, f);
		break;
	}
}

void faults_new(struct sim *s)
{
	s->faults = mem_alloc(sizeof(*s->faults));
	s->faults->n = plan(&s->o, &s->faults->list);
	for (size_t i = 0; i < s->faults->n; i++)
		sim_after(s, s->faults->list[i].at_us, NULL, LIFE_POWER, fault, i, NULL, NULL);
}

void faults_free(struct sim *s)
{
	if (!s->faults)
		return;
	free(s->faults->list);
	free(s->faults);
}

void faults_heal_all(struct sim *s)
{
	group_heal_cables(s);
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_host *h = &s->host[i];

		disk_set_mood(host_disk(h), DISK_WORKS);
		fence_set_mood(s, h, FENCE_WORKS);
		qemu_fault_starts_fail(s, h, 0);
		h->store_cut = false;
		host_thaw(s, h);
		host_power_on(s, h);
		if (host_node(h))
			host_clusterd_hang(s, h, false);
		if (agent_is_running(h))
			agent_hang(s, h, false);
	}
	group_changed(s, 500000);
}
