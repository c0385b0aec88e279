/* When an agent without a quorate clusterd must kill its HA domains: pure. All deadlines derive here; static asserts
 * keep the self-fence before the moment at which the others act (docs of the timeline in selffence.c). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/deadlines.h"

#define SELFFENCE_HEARTBEAT_MS DEADLINE_HEARTBEAT_MS /* clusterd -> agent */
#define SELFFENCE_KILL_MS 20000			     /* no quorate heartbeat for so long: HA domains are killed */
#define SELFFENCE_KILL_TAKES_MS 2000		     /* SIGKILL to the last page written, at the worst */
#define SELFFENCE_OTHERS_WAIT_MS 30000 /* a proof by time alone (watchdog) may count after so long without membership  \
					*/
_Static_assert(DEADLINE_HEARD_MS + SELFFENCE_HEARTBEAT_MS + SELFFENCE_KILL_MS + SELFFENCE_KILL_TAKES_MS <
		   SELFFENCE_OTHERS_WAIT_MS,
	       "the self-fence must end before the others act");

struct selffence {
	uint64_t last_quorate_ms;
	bool ever_quorate;
	bool fenced;
	bool blind;              /* no clusterd: nothing is known about the quorum */
	uint64_t blind_since_ms;
};
void selffence_init(struct selffence *sf, uint64_t now_ms);
/* clusterd came (present) or went. While it is away the countdown stands still: a clusterd that crashed or is being upgraded
 * must not cost a domain, and its host stays in corosync's ring, so the others do not act either. If the host is lost at the same
 * time they act on a fence agent's proof, which needs nothing of us. A proof by time alone must not be used for a host
 * whose agent cannot see the quorum by itself. */
void selffence_clusterd(struct selffence *sf, bool present, uint64_t now_ms);
void selffence_heartbeat(struct selffence *sf, bool quorate, uint64_t now_ms);
/* True exactly while HA domains must not run. */
bool selffence_tick(struct selffence *sf, uint64_t now_ms);
