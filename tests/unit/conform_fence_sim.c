/* The simulator's fence devices, over the simulator's clock; a host here is nothing but its power. */
#include "tests/unit/conform_fence.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_agent_internal.h"

struct simulated_fence {
	struct sim s;              /* first: an answer finds the rest by it */
	struct sim_result r;
	bool answered;
	fence_side_answer answer;
	void *data;
};

/* ---- what sim_fence.c asks of the rest of the simulator */

bool net_reaches_store(const struct sim *s, const struct sim_host *h)
{
	return true;
}

void host_power_off(struct sim *s, struct sim_host *h, const char *why)
{
	h->powered = false;
}

void host_power_on(struct sim *s, struct sim_host *h)
{
	h->powered = true;
}

bool check_fence_asked(struct sim *s, const struct sim_host *target)
{
	return false;
}

void check_fenced(struct sim *s, const struct sim_host *by, const struct sim_host *target, bool was_healthy)
{
}

void host_fence_answer(struct sim *s, struct sim_host *by, const char *target, int rc, const char *text, bool by_time)
{
	struct simulated_fence *f = (struct simulated_fence *)s;

	f->answered = true;
	f->answer(f->data, target, rc, text);
}

/* ---- the side */

static void *sim_make(fence_side_answer answer, void *data)
{
	struct simulated_fence *f = mem_alloc(sizeof(*f));

	f->s.r = &f->r;
	f->s.rng = 77;
	f->s.o.hosts = 3;
	f->answer = answer;
	f->data = data;
	for (unsigned i = 1; i <= 3; i++) {
		f->s.host[i].id = i;
		f->s.host[i].powered = true;
		snprintf(f->s.host[i].name, sizeof(f->s.host[i].name), "host%u", i);
	}
	fences_new(&f->s);
	return f;
}

static void sim_free(void *side)
{
	struct simulated_fence *f = side;

	sim_events_drop(&f->s);
	fences_free(&f->s);
	free(f);
}

static struct sim_host *target_of(void *side)
{
	return sim_host_by_name(&((struct simulated_fence *)side)->s, CONFORM_TARGET);
}

static void sim_set_mood(void *side, enum fence_side_mood mood)
{
	static const enum fence_mood moods[] = {FENCE_WORKS, FENCE_SLOW, FENCE_FAILS, FENCE_LIES};

	fence_set_mood(&((struct simulated_fence *)side)->s, target_of(side), moods[mood]);
}

static void sim_set_power(void *side, bool on)
{
	target_of(side)->powered = on;
}

static bool sim_has_power(void *side)
{
	return target_of(side)->powered;
}

static void sim_start(void *side, const char *target)
{
	struct simulated_fence *f = side;

	fence_run(&f->s, &f->s.host[1], target, false);
}

static void sim_cancel(void *side)
{
	struct simulated_fence *f = side;

	fence_cancel_all(&f->s, &f->s.host[1]);
}

static void sim_pass(void *side, unsigned ms)
{
	struct simulated_fence *f = side;

	f->answered = false;
	for (uint64_t end = f->s.now_us + ms * MS; f->s.now_us < end && !f->answered;)
		sim_run_until(&f->s, f->s.now_us + MS);
}

const struct fence_side fence_side_sim = {
	.name = "sim_fence.c", .make = sim_make, .free = sim_free, .set_mood = sim_set_mood, .set_power = sim_set_power,
	.has_power = sim_has_power, .start = sim_start, .cancel = sim_cancel, .pass = sim_pass, .quick_ms = 12000, .patience_ms = 60000,
};
