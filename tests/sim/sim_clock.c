/* The simulated clock: chance, the trace, events in the order of their time, the hosts' own clocks. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"

struct sim_event {
	uint64_t at_us, seq;
	sim_fn fn;
	struct sim_host *host;
	uint64_t life_at, arg;
	void *p;
	void (*drop)(void *p);
	enum sim_life life;
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

void sim_say(struct sim *s, const char *fmt, ...)
{
	char line[sizeof(s->o.tail->lines[0])];
	int len = snprintf(line, sizeof(line), "%12.3f s  ", (double)s->now_us / 1e6);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + len, sizeof(line) - (size_t)len, fmt, ap);
	va_end(ap);
	if (s->o.tail)
		memcpy(s->o.tail->lines[s->o.tail->next++ % SIM_TAIL_LINES], line, sizeof(line));
	else
		puts(line);
}

void sim_hash(struct sim *s, uint64_t what)
{
	s->r->hash = (s->r->hash ^ what) * 1099511628211ull;
	s->r->hash ^= s->r->hash >> 31;
}

void sim_violation(struct sim *s, const char *invariant, const char *fmt, ...)
{
	size_t len;
	va_list ap;

	if (s->r->violation[0])
		return;
	len = (size_t)snprintf(s->r->violation, sizeof(s->r->violation), "%s: ", invariant);
	va_start(ap, fmt);
	vsnprintf(s->r->violation + len, sizeof(s->r->violation) - len, fmt, ap);
	va_end(ap);
	sim_trace(s, "VIOLATION %s", s->r->violation);
}

/* ---- events -------------------------------------------------------------------- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

static void push(struct sim *s, const struct sim_event *e)
{
	size_t i = s->n_heap++;

	if (s->n_heap > s->cap_heap) {
		s->cap_heap = s->cap_heap ? 2 * s->cap_heap : 1024;
		s->heap = mem_realloc(s->heap, s->cap_heap * sizeof(*s->heap));
	}
	while (i && before(e, &s->heap[(i - 1) / 2])) {
		s->heap[i] = s->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	s->heap[i] = *e;
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

void sim_after(struct sim *s, uint64_t us, struct sim_host *h, enum sim_life life, sim_fn fn, uint64_t arg, void *p, void (*drop)(void *))
{
	struct sim_event e = {.at_us = s->now_us + us, .seq = s->seq++, .fn = fn, .host = h, .life = life, .arg = arg, .p = p, .drop = drop};

	e.life_at = h ? h->life[life] : 0;
	push(s, &e);
}

static bool is_void(const struct sim_event *e)
{
	return e->host && e->life_at != e->host->life[e->life];
}

static void park(struct sim *s, const struct sim_event *e)
{
	if (s->n_parked == s->cap_parked) {
		s->cap_parked = s->cap_parked ? 2 * s->cap_parked : 64;
		s->parked = mem_realloc(s->parked, s->cap_parked * sizeof(*s->parked));
	}
	s->parked[s->n_parked++] = *e;
}

void sim_thawed(struct sim *s, struct sim_host *h)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->n_parked; i++) {
		struct sim_event e = s->parked[i];

		if (e.host != h) {
			s->parked[kept++] = e;
			continue;
		}
		e.at_us = s->now_us;
		push(s, &e);
	}
	s->n_parked = kept;
}

void sim_run_until(struct sim *s, uint64_t us)
{
	while (s->n_heap && s->heap[0].at_us <= us && !s->r->violation[0]) {
		struct sim_event e = pop(s);

		s->now_us = e.at_us;
		if (is_void(&e)) {
			if (e.drop)
				e.drop(e.p);
		} else if (e.host && e.host->frozen) {
			park(s, &e);
		} else {
			e.fn(s, e.host, e.arg, e.p);
		}
	}
	if (!s->r->violation[0])
		s->now_us = us;
}

void sim_events_drop(struct sim *s)
{
	while (s->n_heap) {
		struct sim_event e = pop(s);

		if (e.drop)
			e.drop(e.p);
	}
	for (size_t i = 0; i < s->n_parked; i++)
		if (s->parked[i].drop)
			s->parked[i].drop(s->parked[i].p);
	free(s->heap);
	free(s->parked);
	s->heap = s->parked = NULL;
	s->n_parked = s->cap_heap = s->cap_parked = 0;
}

/* ---- hosts ------------------------------------------------------------------------ */

struct sim_host *sim_host_by_name(struct sim *s, const char *name)
{
	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (!strcmp(s->host[i].name, name))
			return &s->host[i];
	return NULL;
}

uint64_t sim_clock_ms(const struct sim *s, const struct sim_host *h)
{
	return 1000 + (uint64_t)((double)(s->now_us - h->powered_us) * h->drift / 1000);
}

uint64_t sim_wall_ms(const struct sim *s, const struct sim_host *h)
{
	return (uint64_t)(1700000000000ll + (int64_t)((double)s->now_us * h->drift / 1000) + h->wall_skew_ms);
}
