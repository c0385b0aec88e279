/* The end of a QEMU and what is left of it. The order matters: the process is surely dead (pidfd) before its leases
 * are released, and all is clean before the end is reported, because the cluster may start the domain elsewhere
 * the moment it reads the report. */
#pragma once

#include "agent/daemon/agent_state.h"

/* Kills what is here; the first reason given stays. Idempotent. */
void domain_end_begin(struct domain *d, enum domain_end end, const char *reason);
/* The guest hangs: crashed, and said so. */
void domain_end_hung(struct domain *d, const char *reason);
#define DOMAIN_END_WATCHDOG_FIRED "hung: its watchdog fired"
/* For `destroy`: QEMU may write its caches out, for DESTROY_QUIT_MS at most. */
void domain_end_quit(struct domain *d, const char *reason);
/* The process has ended by itself or by us. exit_status and log_tail as in qemu_process.h. */
void domain_end_exited(struct domain *d, int exit_status, const char *log_tail);
/* At the beginning of each pass: frees dead processes, carries out deadlines. */
void domain_end_reap(struct domain *d);
/* OP_CLEAN: leases, taps, folder; then the domain is absent and its end is on record. */
void domain_end_clean(struct domain *d);
/* Puts an end on record: noted first (ended_note.h), then reported. */
void domain_end_record(struct domain *d, uint64_t generation, Gantry__DomainState state, const char *reason);
