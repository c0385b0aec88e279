#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sim_event {
	uint64_t at_us, seq;
	sim_fn fn;
	struct sim_host *host;
	uint64_t life, arg;
	void *p;
};

/* xorshift64* (Vigna): small, repeatable, good enough to choose faults. */
uint64_t sim_random(struct sim *s, uint64_t below)
{
	s->rng ^= s->rng >> 12;
	s->rng ^= s->rng << 25;
	s->rng ^= s->rng >> 27;
	return below ? (s->rng * 2685821657736338717ull >> 11) % below : 0;
}

bool sim_chance(struct sim *s, double p)
{
	return (double)sim_random(s, 1u << 30) < p * (1u << 30);
}

void sim_trace(struct sim *s, const char *fmt, ...)
{
	char line[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (const char *p = line; *p; p++)
		s->r->hash = (s->r->hash ^ (uint8_t)*p) * 1099511628211ull;
	if (s->o.trace)
		printf("%10.3f ms  %s\n", s->now_us / 1000.0, line);
}

void sim_violation(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->r->violation[0])
		return;
	va_start(ap, fmt);
	vsnprintf(s->r->violation, sizeof(s->r->violation), fmt, ap);
	va_end(ap);
	sim_trace(s, "VIOLATION %s", s->r->violation);
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

void sim_after(struct sim *s, uint64_t us, sim_fn fn, struct sim_host *h, uint64_t arg, void *p)
{
	size_t i = s->n_heap++;
	struct sim_event e = {s->now_us + us, s->seq++, fn, h, h ? h->life : 0, arg, p};

	if (s->n_heap > s->cap_heap) {
		s->cap_heap = s->cap_heap ? 2 * s->cap_heap : 1024;
		s->heap = mem_realloc(s->heap, s->cap_heap * sizeof(*s->heap));
	}
	while (i && before(&e, &s->heap[(i - 1) / 2])) {
		s->heap[i] = s->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	s->heap[i] = e;
}

static struct sim_event pop(struct sim *s)
{
	struct sim_event top = s->heap[0], last = s->heap[--s->n_heap];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= s->n_heap)
			break;
		if (child + 1 < s->n_heap && before(&s->heap[child + 1], &s->heap[child]))
			child++;
		if (!before(&s->heap[child], &last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	if (s->n_heap)
		s->heap[i] = last;
	return top;
}

static void run_until(struct sim *s, uint64_t us)
{
	while (s->n_heap && s->heap[0].at_us <= us && !s->r->violation[0]) {
		struct sim_event e = pop(s);

		s->now_us = e.at_us;
		e.fn(s, e.host, e.life, e.arg, e.p);
	}
	s->now_us = us;
}

static void tick(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	host_tick(s, h);
	sim_after(s, 100000 + sim_random(s, 1000), tick, h, 0, NULL);
}

static void client(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	struct sim_host *at = &s->host[1 + sim_random(s, s->o.hosts)];

	if (at->state == HOST_UP && !at->hung)
		host_propose(s, at, 'C', 0);
	sim_after(s, 1000 + sim_random(s, 200000), client, NULL, 0, NULL);
}

/* Faults have ended: within this simulated time every host must be NORMAL and agree. */
#define SETTLE_MS 60000

static void check_settled(struct sim *s)
{
	uint64_t end = 0, chain = 0;

	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct clog_status st;

		clog_get_status(s->host[i].clog, &st);
		if (st.phase != CLOG_NORMAL)
			sim_violation(s, "liveness: host %u is not normal %d s after the last fault: %s", i, SETTLE_MS / 1000,
				      st.text);
		if (!end) {
			end = s->host[i].applied;
			chain = s->host[i].chain;
		}
		if (s->host[i].applied != end || s->host[i].chain != chain)
			sim_violation(s, "agreement: host %u ends at %lu, host 1 at %lu", i, s->host[i].applied, end);
	}
	if (end < s->acked_index)
		sim_violation(s, "durability: %lu was acknowledged, the log ends at %lu", s->acked_index, end);
}

void sim_run(const struct sim_options *o, struct sim_result *r)
{
	struct sim *s = mem_alloc(sizeof(*s));
	uint64_t end = (uint64_t)o->minutes * 60000000, commits;

	*r = (struct sim_result){.hash = 14695981039346656037ull};
	s->o = *o;
	s->r = r;
	s->rng = o->seed * 0x9E3779B97F4A7C15ull + 0x2545F4914F6CDD1Dull;
	for (unsigned i = 1; i <= o->hosts; i++) {
		s->host[i].id = i;
		s->host[i].in_end = &s->host[i].in;
		s->host[i].out_end = &s->host[i].out;
		host_start_daemon(s, &s->host[i]);
		sim_after(s, sim_random(s, 100000), tick, &s->host[i], 0, NULL);
	}
	group_changed(s, 10000);
	sim_after(s, 1000000, client, NULL, 0, NULL);
	run_until(s, 5000000);
	faults_schedule(s);
	run_until(s, end);
	s->quiet = true;
	faults_heal_all(s);
	run_until(s, end + SETTLE_MS * 1000ull - 10000000);
	commits = r->commits;
	run_until(s, end + SETTLE_MS * 1000ull);
	/* The clients go on until here: a little of what they say is still under way; let it land. */
	if (!r->violation[0] && r->commits == commits)
		sim_violation(s, "liveness: no command was committed in the last 10 s");
	for (unsigned i = 1; i <= o->hosts; i++)
		s->host[i].life++;
	s->quiet = true;
	if (!r->violation[0])
		check_settled(s);
	r->simulated_ms = s->now_us / 1000;
	for (unsigned i = 1; i <= o->hosts; i++) {
		group_clear(&s->host[i], true);
		host_free(&s->host[i]);
	}
	/* What is left is void (life has gone on): its functions only free. Configurations have none. */
	while (s->n_heap) {
		struct sim_event e = pop(s);

		if (e.fn && e.p)
			e.fn(s, e.host, e.life, e.arg, e.p);
		else
			free(e.p);
	}
	free(s->heap);
	free(s->truth);
	free(s);
}
