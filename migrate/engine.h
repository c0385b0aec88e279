/* The migration engine: drives one side of one live migration through Xen's six stages, between this host's
 * QEMU (hypervisor/) and the other agent (proto/rpc over TLS, port PORT_MIGRATION). It never decides who runs the guest:
 * the destination says "ready to commit", the log says COMMIT or ABORT, and the agent tells the engine by engine_decide().
 *
 *   source:       PRE_MIGRATION connect, hello -> RESERVATION -> PRE_COPY migrate (pause-before-switchover) -> at pre-switchover
 *                 (paused) hand leases over -> STOP_AND_COPY migrate-continue, last bytes, END -> COMMITMENT wait.
 *                 Decide COMMIT: the guest is killed by the agent. Decide ABORT: the guest continues (cont or QEMU's own resume).
 *   destination:  hello checked against the job's token -> QEMU started by the agent with -incoming defer -> bytes fed ->
 *                 END compared -> ready_to_commit -> COMMITMENT wait. Decide COMMIT: agent acquires leases, cont. ABORT: killed by the agent.
 *
 * The source QEMU's migration socket never sees an end of file before the decision, not even when the agent dies: the
 * far end of its socketpair is also handed to QEMU (getfd), so that a dead agent stalls the stream and does not make
 * QEMU resume the guest by itself (docs/decisions). After a restart of the agent a source engine is gone: the agent
 * reports `failed`, and waits for the decision with the guest as it is (engine_abandon_source). */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "hypervisor/qemu_process.h"
#include "lib/err.h"
#include "proto/agent.pb-c.h"
#include "proto/migration.pb-c.h"
#include "proto/rpc.h"
#include "proto/tls.h"

struct engine;

struct engine_callbacks {
	/* Stage, progress, ready_to_commit, failed changed. report is borrowed. At most every 250 ms for mere progress. */
	void (*on_report)(void *data, struct engine *en, const Gantry__MigrationReport *report);
	/* Source, at pre-switchover (guest paused): hand the leases over, then call engine_leases_handed(). */
	void (*on_hand_over)(void *data, struct engine *en);
	/* Destination: reservation wanted: start QEMU (incoming) with its taps and volumes checked, then engine_reserved(). */
	void (*on_reserve)(void *data, struct engine *en);
	/* After engine_decide(): the engine holds nothing any more (sockets closed, QEMU's migration state is as decided).
	 * rc 0: as decided. Otherwise err says what could not be done (the agent then kills QEMU and restarts by policy). */
	void (*on_settled)(void *data, struct engine *en, int rc, const struct err *err);
};

struct engine_options {
	const Gantry__MigrationGoal *goal;   /* copied */
	const char *cluster_uuid;
	const char *host;
	const char *qemu_version_text;
	struct tls_context *tls;
};
int engine_source_start(uv_loop_t *loop, const struct engine_options *o, struct qemu_process *qemu, const struct engine_callbacks *cb, void *data, struct engine **ret, struct err *err);
int engine_destination_new(uv_loop_t *loop, const struct engine_options *o, const struct engine_callbacks *cb, void *data, struct engine **ret, struct err *err);
/* The agent's listener gives each new migration connection here with its hello; the engine checks token, job, generation, hosts and the
 * certificate's name. On 0 it owns conn from now on; otherwise the caller refuses the connection with err->text. */
int engine_destination_accept(struct engine *en, struct rpc_conn *conn, const Gantry__MigrationHello *hello, struct err *err);
/* rc 0 and the started QEMU, or a failure with err. */
void engine_reserved(struct engine *en, int rc, struct qemu_process *qemu, const struct err *err);
void engine_leases_handed(struct engine *en, int rc, const struct err *err);
void engine_decide(struct engine *en, bool commit);
/* QEMU of this side has died: the engine reports failed. */
void engine_qemu_died(struct engine *en, const char *log_tail);
/* Events of the QEMU process (MIGRATION, MIGRATION_PASS, STOP, RESUME) are passed on by the agent. */
void engine_qemu_event(struct engine *en, const char *event, json_t *event_data);
bool engine_incoming(const struct engine *en);
const Gantry__MigrationReport *engine_report(const struct engine *en);
void engine_free(struct engine *en);

/* After an agent restart: a source QEMU whose engine died with the old agent. Brings it back to plain running (abort): cancel or yank of the
 * stalled migration, then cont if it is paused. Call only after ABORT is decided. qemu need not be ready: one whose QMP is frozen by the
 * stalled stream is freed by cutting the stream at its socket. qemu must live until cb, which comes once, from the loop, within 30 s. */
int engine_rescue_source(uv_loop_t *loop, struct qemu_process *qemu, void (*cb)(void *data, int rc, const struct err *err), void *data, struct err *err);
