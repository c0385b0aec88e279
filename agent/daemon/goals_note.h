/* The newest (epoch, index) of goals that this host ever obeyed, kept in PATH_AGENT_STATE so that an old clusterd's
 * goals are refused after a restart too; and the moment of the last quorum, kept in PATH_RUN so that a restart of the
 * agent does not begin the countdown of the self-fence anew. */
#pragma once

#include "agent/daemon/agent_state.h"

/* What was noted before this start. A missing note is no error. */
int goals_note_load(struct agent *a, struct err *err);
/* 0: obey; -ESTALE with text: older than what was seen. */
int goals_note_check(const struct agent *a, const Gantry__AgentGoals *goals, struct err *err);
/* Remembers at once, writes in the thread pool (the newest only; writes do not pile up). */
void goals_note_seen(struct agent *a, const Gantry__AgentGoals *goals);
/* Waits for nothing; the file that is being written is whole or the old one. */
uint64_t goals_note_boot_ms(void);
uint64_t goals_note_quorum_load(uint64_t now_boot_ms);
void goals_note_quorum_store(uint64_t boot_ms);
