/* Goals and heartbeats as they come from clusterd: checked, then in force until newer ones come. */
#pragma once

#include "agent/daemon/agent_state.h"

/* Takes message->goals out of the message and puts them in force. Refused as a whole, with the reason: goals for
 * another host, older ones (-ESTALE), and what could not be a goal (names that are no names, missing parts). */
int agent_goals_take(struct agent *a, Gantry__AgentMessage *message, struct err *err);
void agent_goals_heartbeat(struct agent *a, const Gantry__AgentQuorum *quorum);
