/* A domain whose QEMU is here: run, pause, shut down, and the two ends of a migration. The state that is kept
 * (running, paused, held) follows QEMU's own events and is asked for every STATUS_EVERY_MS, in case one was missed. */
#pragma once

#include "agent/daemon/agent_state.h"

extern const struct qemu_process_callbacks domain_run_callbacks;

/* One QMP command whose answer comes to cb with the domain, whose `pending` cb takes back; meanwhile nothing else is begun. args: stolen.
 * -ENOTCONN while QEMU is not there or does not answer. */
int domain_run_qmp(struct domain *d, const char *command, json_t *args, qmp_reply_cb cb);
/* HA and isolation, noted for a new agent that has no goals yet. */
void domain_run_take_policy(struct domain *d, const Gantry__DomainGoal *goal);
/* The first `cont` of a start (or none, if it shall be paused). */
void domain_run_first(struct domain *d);
void domain_run_pause(struct domain *d);
/* Throttled: once a second; after an error of its storage as domain_io.h has it. */
void domain_run_unpause(struct domain *d);
/* ACPI power button; repeated every POWERDOWN_EVERY_MS while it is asked for. */
void domain_run_shutdown(struct domain *d);
/* COMMIT was applied: leases of the new generation, then `cont`. */
void domain_run_activate(struct domain *d);
/* ABORT was applied: leases back first, then the engine lets the guest go on. */
void domain_run_settle_abort(struct domain *d);
/* The engine (or the rescue) has done its part of the abort. */
void domain_run_settled(struct domain *d, int rc, const struct err *err);
/* The source is paused at pre-switchover. */
void domain_run_held(struct domain *d);
/* Once per pass: leases of adopted QEMUs, QEMU's status. */
void domain_run_tend(struct domain *d);
