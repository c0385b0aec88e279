/* Volumes that the goals ask this host to create or delete: each once per task, reported until the goal is gone. A
 * creation that a restart of the agent cut short is begun anew: its own half-made file is told from somebody else's by
 * a note in PATH_AGENT_STATE. */
#pragma once

#include "agent/daemon/agent_state.h"

void volume_task_update(struct agent *a);
/* Appends to the report, which owns the messages. */
void volume_task_report(const struct agent *a, Gantry__AgentReport *report);
