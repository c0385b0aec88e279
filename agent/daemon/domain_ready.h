/* Whether a domain is ready, by its policy (HaPolicy.ready_by), and whether its guest has hung. What was found stays until its QEMU
 * ends; an adopted one is found out again. A copy that was activated is ready at once: its guest went on. */
#pragma once

#include "agent/daemon/agent_state.h"

/* Once per pass, with the domain's goal, while its guest is here (running, paused, source). May end a domain that has hung. */
void domain_ready_tend(struct domain *d, const Gantry__DomainGoal *goal);
/* Why it is not ready yet, for people, "not ready: ..."; NULL: it is, or nothing is to be said. Borrowed. */
const char *domain_ready_reason(const struct domain *d);
/* The QEMU has ended. */
void domain_ready_forget(struct domain *d);
