/* A run of the simulated world, from its making to its end. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/buf.h"

/* Faults have ended: within this time everything must be well again (docs/proof.md says where the figure comes from). */
#define SETTLE_US 240000000ull

static void hosts_new(struct sim *s)
{
	uint64_t room = s->o.hosts > 2 ? s->o.hosts - 2 : 1;

	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_host *h = &s->host[i];

		h->sim = s;
		h->id = i;
		snprintf(h->name, sizeof(h->name), "host%u", i);
		h->drift = 0.995 + sim_random(s, 1000) / 100000.0;
		h->wall_skew_ms = (int64_t)sim_random(s, 2000) - 1000;
		/* All domains have room on all hosts but two; a domain takes 1 GiB. */
		h->memory_bytes = (s->o.domains / room + 4) << 30;
		host_new(s, h);
	}
}

/* ---- a run ---------------------------------------------------------------------------- */

static void world_free(struct sim *s)
{
	for (unsigned i = 1; i <= s->o.hosts; i++)
		for (int k = 0; k < LIFE_KINDS; k++)
			s->host[i].life[k]++;
	sim_events_drop(s);
	for (unsigned i = 1; i <= s->o.hosts; i++)
		host_free(s, &s->host[i]);
	users_free(s);
	faults_free(s);
	fences_free(s);
	store_free(s);
	group_free(s);
	checks_free(s);
	check_domains_free(s);
	free(s);
}

void sim_run(const struct sim_options *o, struct sim_result *r)
{
	struct sim *s = mem_alloc(sizeof(*s));
	uint64_t end;

	*r = (struct sim_result){.hash = 14695981039346656037ull};
	s->o = *o;
	s->r = r;
	s->rng = o->seed * 0x9E3779B97F4A7C15ull + 0x2545F4914F6CDD1Dull;
	checks_new(s);
	group_new(s);
	store_new(s);
	fences_new(s);
	hosts_new(s);
	users_new(s);
	if (users_set_up(s)) {
		sim_trace(s, "---- the cluster is made; faults begin");
		end = s->now_us + (uint64_t)o->minutes * 60000000;
		faults_new(s);
		users_begin(s);
		sim_run_until(s, end);
		s->quiet = true;
		sim_trace(s, "---- all faults end");
		faults_heal_all(s);
		sim_run_until(s, end + SETTLE_US / 2);
		users_stop(s);
		sim_run_until(s, end + SETTLE_US);
		if (!r->violation[0])
			check_settled(s);
		if (!r->violation[0])
			users_check(s);
	}
	r->simulated_ms = s->now_us / 1000;
	world_free(s);
}
