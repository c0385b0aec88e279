/* This host's own watchdog (host.yaml: watchdog): the device resets the host unless it is fed, and it is fed only while this agent
 * turns and the host is not self-fenced (or automatic action is off). So a host that lost its quorum is surely dead in time, whatever hangs on it.
 *
 * It is taken up with the first quorum that is seen, not before: a host that boots into a partition must not reset itself for ever.
 * From then on, a note on /run says so; a new agent takes an armed watchdog up again at its begin. */
#pragma once

#include "agent/daemon/agent_state.h"

/* After host.yaml was read. Never fails: without a watchdog nothing of this does anything. */
void host_watchdog_init(struct agent *a);
/* Once per pass, behind the self-fence: opens what shall be open (tried again, with the reason logged once), feeds. */
void host_watchdog_update(struct agent *a);
/* The path while it guards this host, else "". */
const char *host_watchdog_guard(const struct agent *a);
/* The agent ends in order: disarmed if no HA domain is left here; else it stays armed for the next agent. */
void host_watchdog_leave(struct agent *a);
