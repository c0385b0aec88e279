/* Making a domain's QEMU: for a start, and for the copy of an incoming migration.
 *
 *     files of the host -> volumes reachable -> leases -> bridge, taps -> folder, note -> QEMU -> (cont)
 *
 * A copy takes no leases: it gets them when COMMIT is applied. Whatever fails is undone by domain_end: a start that
 * failed for a reason that may pass (storage away, lease not yet released) is tried again with growing pauses for
 * START_RETRY_MS and meanwhile reported as starting with its reason; then, and for all other reasons, as failed. */
#pragma once

#include "agent/daemon/agent_state.h"

/* OP_START. Does nothing while a pause between tries lasts or an older operation still has to call back. */
void domain_start(struct domain *d, const Gantry__DomainGoal *goal);
/* The copy for a migration; ends in migration_host_reserved(). Fails at once if this host cannot take it. */
int domain_start_copy(struct domain *d, const Gantry__MigrationGoal *goal, struct err *err);
/* Both QMP sessions of a QEMU that this agent started are up. */
void domain_start_ready(struct domain *d);
/* They never came up: the start has failed. */
void domain_start_never_ready(struct domain *d, const struct err *err);
/* A QEMU that ended in its start because another process still has an image: true, and the start is tried again. */
bool domain_start_image_busy(struct domain *d, const char *log_tail);
/* Takes the leases of the QEMU's generation; cb of the result comes with the domain as data. The guest must not run. */
int domain_start_leases(struct domain *d, storage_cb cb, struct err *err);
/* In a callback of the acquisition: keeps the set or notes that there is none. */
void domain_start_leases_done(struct domain *d, int rc);
/* True for reasons that may pass by themselves. */
bool domain_start_may_pass(int rc);
