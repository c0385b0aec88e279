/* A fence device as a leader sees it: what test_conform_fence.c checks on the real runs (clusterd/daemon/fence_runner.c over
 * fencing/fence_agent.c and an agent that is a script, conform_fence_real.c) and on the simulator's (tests/sim/sim_fence.c,
 * conform_fence_sim.c). One host is fenced: it has a name, power, and a device in some mood. */
#pragma once

#include <stdbool.h>

#define CONFORM_TARGET "host2"
#define CONFORM_NOBODY "host9"     /* has no device */

enum fence_side_mood { DEVICE_WORKS, DEVICE_SLOW, DEVICE_FAILS, DEVICE_LIES };

/* rc 0: text is the proof, else the failure. Only from within pass(). */
typedef void (*fence_side_answer)(void *data, const char *target, int rc, const char *text);

struct fence_side {
	const char *name;
	void *(*make)(fence_side_answer answer, void *data);
	void (*free)(void *side);
	void (*set_mood)(void *side, enum fence_side_mood mood);
	void (*set_power)(void *side, bool on);
	bool (*has_power)(void *side);
	void (*start)(void *side, const char *target);
	void (*cancel)(void *side);
	/* For so long, or until there is an answer. A slow device takes less than patience_ms, any other less than quick_ms. */
	void (*pass)(void *side, unsigned ms);
	unsigned quick_ms, patience_ms;
};

extern const struct fence_side fence_side_real, fence_side_sim;
