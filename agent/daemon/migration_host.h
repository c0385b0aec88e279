/* The migrations in which this host has a part: makes the engines (migrate/engine.h) that the goals ask for, feeds
 * them, and tells them the decision, which is read from the goals alone:
 *
 *     job RUNNING in the goals                    undecided
 *     job committed, or ours / no longer ours     COMMIT
 *     job gone or ended, the source still owns    ABORT
 *
 * An engine is made once per job. One that could not be made, or whose agent was restarted, is reported as failed; the
 * guest stays as it is until the decision comes. Owner of all: the agent. */
#pragma once

#include "agent/daemon/agent_state.h"
#include "proto/migration.pb-c.h"

/* Once per pass, before the domains are looked at. */
void migration_host_update(struct agent *a);
bool migration_host_active(const struct agent *a);
/* Appends the reports of all migrations. Owner of the messages: the report. */
void migration_host_report(const struct agent *a, Gantry__AgentReport *report);

/* A channel of a migration to this host: takes the connection over (0), keeps it until the goals name the job (1), or
 * refuses with text (negative; the caller closes). */
int migration_host_accept(struct agent *a, struct rpc_conn *conn, const Gantry__MigrationHello *hello, struct err *err);

/* From the domain's side. */
void migration_host_reserved(struct domain *d, int rc, const struct err *err);
void migration_host_activated(struct domain *d);
void migration_host_qemu_event(struct domain *d, const char *event, json_t *event_data);
void migration_host_qemu_died(struct domain *d, const char *why);
/* The QEMU process is about to be freed: no engine may keep it. */
void migration_host_drop_qemu(struct domain *d);
/* ABORT: domain_run_settled() is called when the guest is free to run, at once with an error otherwise. */
int migration_host_abort_source(struct domain *d, struct err *err);
