/* Finding the domains of this host again after a restart of the agent: every folder of PATH_DOMAINS has a note. Nothing
 * is killed for want of goals before the first goals have come, but what never ran (a start or a copy cut short) is. */
#pragma once

#include "agent/daemon/agent_state.h"

/* Once, at the start of the agent. Returns how many QEMUs were found alive. */
unsigned domain_adopt_all(struct agent *a);
/* Both QMP sessions of an adopted QEMU are up: asks what it does. */
void domain_adopt_ready(struct domain *d);
