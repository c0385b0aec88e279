/* The pass: what the agent does whenever something has changed, and at every tick. Looks at the whole, so that a lost
 * callback or a repeated goal changes nothing; each domain gets at most one operation. */
#pragma once

#include "agent/daemon/agent_state.h"

#define AGENT_TICK_MS 100 /* throttles, retries and the self-fence are looked at so often */

void agent_pass(struct agent *a);
