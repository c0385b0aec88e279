/* gantry-group-trace: the simulated corosync by itself, driven through the scenarios that tests/lab/test_conformance.py drives three
 * real ones through. Prints what each process of the group is told, in the lines of tests/lab/cpg_probe.c; group_rules.py
 * judges both.
 *
 * Usage: gantry-group-trace SEEDS. A line "# SCENARIO SEED" begins a trace. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "tests/sim/sim.h"

#define HOSTS 3
#define MS 1000ull
#define SECOND 1000000ull
#define MESSAGE_CHARS 64

struct process { bool runs, hung; unsigned life; uint64_t seq; };
static struct process processes[HOSTS + 1];

/* ---- what stands where the simulator has its clusterds */

bool host_clusterd_answers(const struct sim_host *h)
{
	return h->powered && !h->frozen && processes[h->id].runs && !processes[h->id].hung;
}

void host_on_view(struct sim *s, struct sim_host *h, uint64_t id, const uint32_t *members, size_t n)
{
	printf("%" PRIu32 " view %" PRIx64 " ", h->id, id);
	for (size_t i = 0; i < n; i++)
		printf("%s%" PRIu32, i ? "," : "", members[i]);
	putchar('\n');
}

void host_on_ring(struct sim *s, struct sim_host *h, const uint32_t *nodes, size_t n)
{
}

void host_on_message(struct sim *s, struct sim_host *h, uint32_t sender, const uint8_t *data, size_t len)
{
	printf("%" PRIu32 " msg %" PRIu32 " %.*s\n", h->id, sender, (int)len, (const char *)data);
}

static void joins(struct sim *s, struct sim_host *h)
{
	struct process *p = &processes[h->id];

	p->runs = true;
	p->seq = 0;
	printf("%" PRIu32 " join %" PRIu32 ".%u\n", h->id, h->id, ++p->life);
	group_join(s, h);
}

/* Nothing while it is frozen: it has no turn. */
static void sends(struct sim *s, unsigned id, unsigned n)
{
	struct process *p = &processes[id];
	char message[MESSAGE_CHARS];

	while (n-- && host_clusterd_answers(&s->host[id]) && s->host[id].port && group_is_connected(&s->host[id])) {
		int len = snprintf(message, sizeof(message), "%u.%u %" PRIu64, id, p->life, ++p->seq);

		printf("%u sent %s\n", id, message);
		group_send(s, &s->host[id], (const uint8_t *)message, (size_t)len);
	}
}

static void all_send(struct sim *s, unsigned n)
{
	for (unsigned i = 1; i <= HOSTS; i++)
		sends(s, i, n);
}

static void pass(struct sim *s, uint64_t us)
{
	sim_run_until(s, s->now_us + us);
}

/* Everybody sends, a few at a time, for about so long. */
static void traffic(struct sim *s, uint64_t us)
{
	for (uint64_t end = s->now_us + us; s->now_us < end; pass(s, sim_random(s, 100 * MS)))
		sends(s, 1 + (unsigned)sim_random(s, HOSTS), 1 + (unsigned)sim_random(s, 20));
}

/* ---- scenarios: host 3 is the one that suffers */

static void quiet(struct sim *s)
{
	traffic(s, 300 * MS);
}

static void cut_for(struct sim *s, uint64_t us)
{
	traffic(s, 50 * MS);
	all_send(s, 100);
	for (unsigned i = 1; i < HOSTS; i++) {
		group_cut(s, &s->host[i], &s->host[HOSTS], true);
		group_cut(s, &s->host[HOSTS], &s->host[i], true);
	}
	group_changed(s, 0);
	traffic(s, us);
	group_heal_cables(s);
	group_changed(s, 100 * MS + sim_random(s, SECOND));
	traffic(s, 2 * SECOND);
}

static void cut_and_merge(struct sim *s)
{
	cut_for(s, 6 * SECOND);
}

/* Over before it is noticed, or just when it is. */
static void cut_briefly(struct sim *s)
{
	cut_for(s, 200 * MS + sim_random(s, 2 * SECOND));
}

static void freeze(struct sim *s, uint64_t us)
{
	struct sim_host *h = &s->host[HOSTS];

	traffic(s, 50 * MS);
	sends(s, HOSTS, 100);
	pass(s, sim_random(s, 1 * MS));
	h->frozen = true;
	group_changed(s, 0);
	traffic(s, us);
	h->frozen = false;
	sim_thawed(s, h);
	group_kick(s, h);
	group_changed(s, 100 + sim_random(s, 200 * MS));
	/* What was asked of it meanwhile. */
	sends(s, HOSTS, 50);
	traffic(s, 2 * SECOND);
}

static void frozen_long(struct sim *s)
{
	freeze(s, 6 * SECOND);
}

static void frozen_briefly(struct sim *s)
{
	freeze(s, 400 * MS);
}

static void process_hung(struct sim *s)
{
	struct sim_host *h = &s->host[HOSTS];

	traffic(s, 50 * MS);
	processes[h->id].hung = true;
	traffic(s, 1500 * MS);
	processes[h->id].hung = false;
	group_kick(s, h);
	traffic(s, 100 * MS);
}

static void process_killed(struct sim *s)
{
	struct sim_host *h = &s->host[HOSTS];

	traffic(s, 50 * MS);
	all_send(s, 100);
	pass(s, sim_random(s, 2 * MS));
	h->life[LIFE_CLUSTERD]++;
	group_leave(s, h);
	processes[h->id].runs = false;
	traffic(s, 300 * MS);
	joins(s, h);
	traffic(s, 300 * MS);
}

static void processes_come_and_go(struct sim *s)
{
	struct sim_host *h = &s->host[HOSTS];

	for (int i = 0; i < 3; i++) {
		h->life[LIFE_CLUSTERD]++;
		group_leave(s, h);
		processes[h->id].runs = false;
		traffic(s, 200 * MS);
		joins(s, h);
		traffic(s, 200 * MS);
	}
}

static void corosync_killed(struct sim *s)
{
	struct sim_host *h = &s->host[HOSTS];

	traffic(s, 50 * MS);
	all_send(s, 100);
	pass(s, sim_random(s, 2 * MS));
	group_corosync(s, h, false);
	printf("%" PRIu32 " left\n", h->id);
	group_changed(s, 0);
	traffic(s, 1 * SECOND);
	group_corosync(s, h, true);
	joins(s, h);
	group_changed(s, 100 * MS + sim_random(s, 500 * MS));
	traffic(s, 4 * SECOND);
}

static const struct { const char *name; void (*play)(struct sim *s); } scenarios[] = {
	{"quiet", quiet}, {"cut_and_merge", cut_and_merge}, {"cut_briefly", cut_briefly},
	{"frozen_long", frozen_long}, {"frozen_briefly", frozen_briefly},
	{"process_hung", process_hung}, {"process_killed", process_killed},
	{"processes_come_and_go", processes_come_and_go}, {"corosync_killed", corosync_killed},
};

/* ---- a world of hosts that have nothing but a corosync */

static void run(size_t which, uint64_t seed)
{
	struct sim_result r = {0};
	struct sim *s = mem_alloc(sizeof(*s));

	printf("# %s %" PRIu64 "\n", scenarios[which].name, seed);
	memset(processes, 0, sizeof(processes));
	s->r = &r;
	s->o.hosts = HOSTS;
	s->rng = (seed * ARRAY_SIZE(scenarios) + which) * 0x9E3779B97F4A7C15ull + 1;
	group_new(s);
	for (unsigned i = 1; i <= HOSTS; i++) {
		s->host[i].sim = s;
		s->host[i].id = i;
		s->host[i].powered = true;
		group_port_new(&s->host[i]);
		group_corosync(s, &s->host[i], true);
	}
	group_changed(s, 0);
	pass(s, 1 * SECOND);
	for (unsigned i = 1; i <= HOSTS; i++) {
		joins(s, &s->host[i]);
		pass(s, sim_random(s, 50 * MS));
	}
	pass(s, 1 * SECOND);
	scenarios[which].play(s);
	/* All is well again: what is sent now reaches all. */
	pass(s, 10 * SECOND);
	all_send(s, 50);
	pass(s, 1 * SECOND);
	for (unsigned i = 1; i <= HOSTS; i++)
		s->host[i].life[LIFE_POWER]++;
	sim_events_drop(s);
	group_free(s);
	free(s);
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;

	if (!seeds) {
		fprintf(stderr, "Usage: gantry-group-trace SEEDS\n");
		return 64;
	}
	for (uint64_t seed = 1; seed <= seeds; seed++)
		for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
			run(i, seed);
	return 0;
}
