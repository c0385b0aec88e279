/* When an agent without a quorate clusterd must kill its HA domains: pure. All deadlines derive here; static asserts
 * keep the self-fence before the moment at which the others act (docs of the timeline in selffence.c). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/deadlines.h"

#define SELFFENCE_HEARTBEAT_MS DEADLINE_HEARTBEAT_MS /* clusterd -> agent */
#define SELFFENCE_KILL_MS 20000			     /* no quorate heartbeat for so long: HA domains are killed */
#define SELFFENCE_KILL_TAKES_MS 2000		     /* SIGKILL to the last page written, at the worst */
#define SELFFENCE_FEED_MS 1000			     /* between two feeds of the watchdog */
#define SELFFENCE_WATCHDOG_MS DEADLINE_WATCHDOG_MS   /* from the last feed to the reset, as the device is set */
#define SELFFENCE_WATCHDOG_LATE_MS 2000 /* by which i6300esb and softdog were late at the most (LAB: 0.9 and 1.5 s) */
#define SELFFENCE_OTHERS_WAIT_MS DEADLINE_PROOF_BY_TIME_MS
_Static_assert(DEADLINE_HEARD_MS + SELFFENCE_HEARTBEAT_MS + SELFFENCE_KILL_MS + SELFFENCE_KILL_TAKES_MS <
		   SELFFENCE_OTHERS_WAIT_MS,
	       "the self-fence must end before the others act");
_Static_assert(DEADLINE_HEARD_MS + SELFFENCE_HEARTBEAT_MS + SELFFENCE_KILL_MS + SELFFENCE_WATCHDOG_MS +
			   SELFFENCE_WATCHDOG_LATE_MS <
		   SELFFENCE_OTHERS_WAIT_MS,
	       "the watchdog must have reset the host before the others act");
_Static_assert(3 * SELFFENCE_FEED_MS < SELFFENCE_WATCHDOG_MS, "one late feed must not reset a healthy host");

struct selffence {
	uint64_t last_quorate_ms;
	bool ever_quorate;
	bool fenced;
	bool strict;             /* selffence_be_strict() */
	bool blind;              /* no clusterd: nothing is known about the quorum */
	uint64_t blind_since_ms;
};
void selffence_init(struct selffence *sf, uint64_t now_ms);
/* This host has a watchdog, and the others may rely on time alone: the countdown goes on while no clusterd is there. */
void selffence_be_strict(struct selffence *sf);
/* clusterd came (present) or went. While it is away the countdown of a host that is not strict stands still: a clusterd that crashed
 * or is being upgraded must not cost a domain, and its host stays in corosync's ring, so the others do not act either. If the host is
 * lost at the same time they act on a fence agent's proof, which needs nothing of us. A proof by time alone must not be used
 * for a host that is not strict: its agent cannot see the quorum by itself. */
void selffence_clusterd(struct selffence *sf, bool present, uint64_t now_ms);
void selffence_heartbeat(struct selffence *sf, bool quorate, uint64_t now_ms);
/* True exactly while HA domains must not run, and the watchdog must not be fed. */
bool selffence_tick(struct selffence *sf, uint64_t now_ms);
