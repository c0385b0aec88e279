/* The worst case, on the boot clock of the host that loses its quorum (L) and as the others (O) see it:
 *
 *   L  0 ms      L hears the others for the last time
 *   O  >= 0      the others miss L, not earlier than L missed them: they begin to wait
 *   L  5000      clusterd says "quorate" for the last time: its corosync hung and reported no loss (DEADLINE_HEARD_MS)
 *   L  5500      that heartbeat has reached the agent (SELFFENCE_HEARTBEAT_MS): the countdown begins
 *   L  25500     SELFFENCE_KILL_MS later HA domains are killed
 *   L  27500     the last write of a killed QEMU has reached the storage or never will (SELFFENCE_KILL_TAKES_MS)
 *   L  25500     a watchdog was fed for the last time, at the latest; by an agent that hung, earlier
 *   L  35500     it resets the host (SELFFENCE_WATCHDOG_MS)
 *   L  37500     at the worst (SELFFENCE_WATCHDOG_LATE_MS)
 *   O  45000     a proof by time alone may count, for a host with a watchdog (SELFFENCE_OTHERS_WAIT_MS)
 *
 * The countdown is kept over a restart of the agent by the daemon, so that a crash in its middle does not begin it
 * anew. It stands still while no clusterd is connected, but not on a host with a watchdog (selffence_clusterd). */
#include "agent/core/selffence.h"

#include "lib/mutant.h"

void selffence_init(struct selffence *sf, uint64_t now_ms)
{
	*sf = (struct selffence){.last_quorate_ms = now_ms};
}

void selffence_be_strict(struct selffence *sf)
{
	sf->strict = true;
	sf->blind = false;
}

void selffence_clusterd(struct selffence *sf, bool present, uint64_t now_ms)
{
	if (sf->strict)
		return;
	if (!present && !sf->blind)
		sf->blind_since_ms = now_ms;
	if (present && sf->blind && now_ms > sf->blind_since_ms)
		sf->last_quorate_ms += now_ms - sf->blind_since_ms;
	sf->blind = !present;
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
	if (MUTANT(selffence_never))
		return false;
	if (!sf->blind && now_ms > sf->last_quorate_ms && now_ms - sf->last_quorate_ms >= SELFFENCE_KILL_MS * (MUTANT(selffence_late) ? 3 : 1))
		sf->fenced = true;
	return sf->fenced;
}
