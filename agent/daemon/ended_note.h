/* How the last QEMU of a domain ended (PATH_ENDED/UUID): the note comes before the word. The cluster may act on the word long after it
 * was said, and gives the domain to another host because of it: an agent that forgot it at its own restart would start the same
 * generation again, and two hosts would run it. Lost with /run at a power loss, as is the clusterd that had the word in hand. */
#pragma once

#include "agent/daemon/agent_state.h"

/* A failure: the end must not be reported. */
int ended_note_write(const struct domain *d, uint64_t generation, Gantry__DomainState state, const char *reason, struct err *err);
/* At the start, before anything is reported: all ends that were noted. One that cannot be read is said and left. */
void ended_note_load_all(struct agent *a);
void ended_note_remove(const char *uuid);
