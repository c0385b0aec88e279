/* The worst case, on the boot clock of the host that loses its quorum (L) and as the others (O) see it:
 *
 *   L  0 ms      the last quorate heartbeat of clusterd is sent; the membership is lost right after it
 *   L  500       that heartbeat at the latest was due again (SELFFENCE_HEARTBEAT_MS): the countdown began at 0 or later
 *   O  >= 0      the others see the host leave the membership, not earlier than L lost it: they begin to wait
 *   L  20500     20000 (SELFFENCE_KILL_MS) after the last heartbeat was received: HA domains are killed
 *   L  22500     the last write of a killed QEMU has reached the storage or never will (SELFFENCE_KILL_TAKES_MS)
 *   O  30000     a proof by time alone may count (SELFFENCE_OTHERS_WAIT_MS)
 *
 * The countdown is kept over a restart of the agent by the daemon, so that a crash in its middle does not begin it anew. */
#include "agent/core/selffence.h"

void selffence_init(struct selffence *sf, uint64_t now_ms)
{
	*sf = (struct selffence){.last_quorate_ms = now_ms};
}

void selffence_heartbeat(struct selffence *sf, bool quorate, uint64_t now_ms)
{
	if (!quorate)
		return;
	if (now_ms > sf->last_quorate_ms)
		sf->last_quorate_ms = now_ms;
	sf->ever_quorate = true;
	sf->fenced = false;
}

bool selffence_tick(struct selffence *sf, uint64_t now_ms)
{
	if (now_ms > sf->last_quorate_ms && now_ms - sf->last_quorate_ms >= SELFFENCE_KILL_MS)
		sf->fenced = true;
	return sf->fenced;
}
