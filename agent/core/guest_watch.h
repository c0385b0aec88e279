/* Whether a guest has hung, by its guest agent: pure. It was heard in this run of the guest, and is silent for the time that its policy
 * allows although it was asked and its vCPUs ran. Time in which this agent itself stood still is not held against the guest. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define GUEST_WATCH_ASK_MS 5000	      /* between two questions */
#define GUEST_WATCH_ASK_LEAST_MS 1000 /* where the policy is short */
#define GUEST_WATCH_QUESTIONS 2	      /* so many without an answer, at least */
#define GUEST_WATCH_GAP_MS 1000	      /* between two looks; more, and this agent stood still */

struct guest_watch {
	bool heard;
	uint64_t heard_at_ms; /* moved on over time that does not count */
	uint64_t seen_at_ms;
	unsigned unanswered;
};
/* The guest begins anew (reset, another QEMU), or its agent has gone in order: it closed its port. */
void guest_watch_reset(struct guest_watch *w);
void guest_watch_asked(struct guest_watch *w);
void guest_watch_answered(struct guest_watch *w, uint64_t now_ms);
/* hung_s 0: never. Often enough for a policy of hung_s. */
uint32_t guest_watch_ask_every_ms(uint32_t hung_s);
/* Called at every pass. running: its vCPUs run, here and not as the source of a migration. True: it has hung. */
bool guest_watch_tick(struct guest_watch *w, uint64_t now_ms, bool running, uint32_t hung_s);
