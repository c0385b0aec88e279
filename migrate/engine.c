#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/fault.h"
#include "lib/limits.h"
#include "migrate/engine_internal.h"
#include "proto/pb.h"

#define TICK_MS 250
#define REPORT_MS 250
#define NEXT(state) (1u << (state))
#define ENDINGS (NEXT(ENGINE_FAILED) | NEXT(ENGINE_SETTLING))

/* The life of an engine. deadline_ms: the longest time in the state without a byte moved; 0: none. The last stages only wait for the log. */
static const struct {
	const char *name;
	Gantry__MigrationStage stage;
	const char *fault_source, *fault_destination;
	uint32_t next;
	uint32_t deadline_ms[2]; /* source, destination */
} states[ENGINE_STATES] = {
	[ENGINE_GREETING] = {"waiting for the other host", GANTRY__MIGRATION_STAGE__STAGE_PRE_MIGRATION, "migrate.source.pre-migration",
			     "migrate.destination.pre-migration", NEXT(ENGINE_RESERVING) | ENDINGS, {15000, 0}},
	[ENGINE_RESERVING] = {"reserving room on the destination", GANTRY__MIGRATION_STAGE__STAGE_RESERVATION, "migrate.source.reservation",
			      "migrate.destination.reservation", NEXT(ENGINE_PREPARING) | ENDINGS, {90000, 75000}},
	[ENGINE_PREPARING] = {"preparing QEMU", GANTRY__MIGRATION_STAGE__STAGE_RESERVATION, NULL, NULL, NEXT(ENGINE_COPYING) | ENDINGS, {15000, 15000}},
	[ENGINE_COPYING] = {"copying memory", GANTRY__MIGRATION_STAGE__STAGE_PRE_COPY, "migrate.source.pre-copy", "migrate.destination.pre-copy",
			    NEXT(ENGINE_HANDING_OVER) | NEXT(ENGINE_SWITCHING) | ENDINGS, {30000, 75000}},
	[ENGINE_HANDING_OVER] = {"handing the leases over", GANTRY__MIGRATION_STAGE__STAGE_STOP_AND_COPY, "migrate.source.hand-over", NULL,
				 NEXT(ENGINE_SWITCHING) | ENDINGS, {30000, 0}},
	[ENGINE_SWITCHING] = {"copying the last bytes", GANTRY__MIGRATION_STAGE__STAGE_STOP_AND_COPY, "migrate.source.stop-and-copy",
			      "migrate.destination.stop-and-copy", NEXT(ENGINE_VERIFYING) | ENDINGS, {30000, 30000}},
	[ENGINE_VERIFYING] = {"verifying the copy", GANTRY__MIGRATION_STAGE__STAGE_STOP_AND_COPY, "migrate.source.verification",
			      "migrate.destination.verification", NEXT(ENGINE_COMPLETE) | ENDINGS, {30000, 15000}},
	[ENGINE_COMPLETE] = {"waiting for the cluster's decision", GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT, "migrate.source.commitment",
			     "migrate.destination.commitment", ENDINGS, {0, 0}},
	[ENGINE_FAILED] = {"failed", GANTRY__MIGRATION_STAGE__STAGE_NONE, NULL, NULL, NEXT(ENGINE_SETTLING), {0, 0}},
	[ENGINE_SETTLING] = {"settling", GANTRY__MIGRATION_STAGE__STAGE_NONE, NULL, NULL, NEXT(ENGINE_SETTLED), {0, 0}},
	[ENGINE_SETTLED] = {"settled", GANTRY__MIGRATION_STAGE__STAGE_NONE, NULL, NULL, 0, {0, 0}},
};

bool engine__is_incoming(const struct engine *en)
{
	return en->goal->incoming;
}

/* ---- states and reports ---- */

void engine__report(struct engine *en)
{
	uint64_t now = uv_now(en->loop);

	en->reported_ms = now;
	en->progress.elapsed_ms = now - en->started_ms;
	en->progress.transferred_bytes = en->figures.transferred_bytes = en->forward.bytes;
	if (!en->figures.total_ms && en->progress.elapsed_ms)
		en->figures.throughput_bytes_per_s = en->forward.bytes * 1000 / en->progress.elapsed_ms;
	en->progress.throughput_bytes_per_s = en->figures.throughput_bytes_per_s;
	if (en->cb.on_report)
		en->cb.on_report(en->data, en, en->report);
}

void engine__move(struct engine *en, enum engine_state state)
{
	const char *fault = engine__is_incoming(en) ? states[state].fault_destination : states[state].fault_source;

	assert(states[en->state].next & NEXT(state));
	assert(state != ENGINE_SETTLED || !en->rescue);
	assert(!en->report->ready_to_commit || state > ENGINE_COMPLETE);
	en->state = state;
	en->state_since_ms = en->moved_ms = uv_now(en->loop);
	/* Where it failed stays to be seen. */
	if (states[state].stage != GANTRY__MIGRATION_STAGE__STAGE_NONE)
		en->report->stage = en->progress.stage = states[state].stage;
	if (fault)
		fault_point(fault);
}

void engine__fail(struct engine *en, const char *fmt, ...)
{
	Gantry__MigrationFailed failed = GANTRY__MIGRATION_FAILED__INIT;
	enum engine_state was = en->state;
	char reason[ERR_TEXT_MAX];
	va_list args;

	/* A complete copy fails no more by what becomes of the source or the connection: the log decides. */
	if (en->state >= ENGINE_COMPLETE)
		return;
	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	engine__move(en, ENGINE_FAILED);
	en->report->failed = true;
	pb_set_string(&en->report->reason, reason);
	if (en->channel)
		qemu_channel_pause(en->channel, true);
	failed.reason = reason;
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_FAILED, &failed);
	if (!engine__is_incoming(en))
		engine_source__on_fail(en, was);
	engine__report(en);
}

/* ---- QMP ---- */

static void on_qmp_answer(void *data, int rc, json_t *ret, const struct err *err)
{
	struct engine_call *call = data;
	struct engine *en = call->en;

	if (en) {
		*call->at = call->next;
		if (call->next)
			call->next->at = call->at;
		if (call->fn)
			call->fn(en, rc, ret, err);
	}
	free(call);
}

static struct engine_call *call_new(struct engine *en, void (*fn)(struct engine *, int, json_t *, const struct err *))
{
	struct engine_call *call = mem_alloc(sizeof(*call));

	call->en = en;
	call->fn = fn;
	call->next = en->calls;
	call->at = &en->calls;
	if (en->calls)
		en->calls->at = &call->next;
	en->calls = call;
	return call;
}

static void call_drop(struct engine *en, struct engine_call *call, const char *what, int rc)
{
	*call->at = call->next;
	if (call->next)
		call->next->at = call->at;
	free(call);
	engine__fail(en, "QEMU cannot be asked to '%s': %s", what, strerror(-rc));
}

void engine__qmp(struct engine *en, const char *command, json_t *args, void (*fn)(struct engine *, int, json_t *, const struct err *))
{
	struct qmp *qmp = en->qemu ? qemu_process_qmp(en->qemu) : NULL;
	struct engine_call *call = call_new(en, fn);
	int rc = -ENOTCONN;

	if (qmp)
		rc = qmp_execute(qmp, command, args, on_qmp_answer, call);
	else
		json_decref(args);
	if (rc < 0)
		call_drop(en, call, command, rc);
}

void engine__qmp_fd(struct engine *en, const char *fdname, int fd, void (*fn)(struct engine *, int, json_t *, const struct err *))
{
	struct qmp *qmp = en->qemu ? qemu_process_qmp(en->qemu) : NULL;
	struct engine_call *call = call_new(en, fn);
	int rc = qmp ? qmp_send_fd(qmp, fdname, fd, on_qmp_answer, call) : -ENOTCONN;

	if (rc < 0)
		call_drop(en, call, "getfd", rc);
}

/* late-block-activate: the destination opens its disks for writing at `cont`, not before. return-path: `completed` means that the
 * destination has it all. pause-before-switchover: the source waits, paused, for the leases. */
json_t *engine__capabilities(void)
{
	static const char *const names[] = {"late-block-activate", "return-path", "pause-before-switchover", "events", "auto-converge"};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		json_array_append_new(list, json_pack("{s:s, s:b}", "capability", names[i], "state", 1));
	return json_pack("{s:o}", "capabilities", list);
}

/* ---- the peer ---- */

void engine__send(struct engine *en, Gantry__MigrationMessage__BodyCase which, void *body)
{
	Gantry__MigrationMessage m = GANTRY__MIGRATION_MESSAGE__INIT;

	m.body_case = which;
	m.hello = body; /* all members of the union are pointers to a message */
	/* A connection that is going tells so by on_close. */
	if (en->conn_open)
		(void)rpc_send_message(en->conn, FRAME_MIGRATION, &m.base);
}

void engine__send_chunk(struct engine *en, uint8_t *bytes, size_t len, bool reply)
{
	struct stream_sum *sum = reply ? &en->reply : &en->forward;
	struct stream_chunk chunk = {.sequence = sum->chunks + 1, .reply = reply, .data = bytes, .len = (uint32_t)len};
	uint8_t head[STREAM_HEAD_MAX];
	size_t head_len = stream_chunk_head(&chunk, head);

	(void)stream_sum_add(sum, &chunk, NULL); /* our own numbers: never out of order */
	if (!reply && __builtin_expect(en->test_damage_chunk == chunk.sequence, 0))
		bytes[len / 2] ^= 0x10;
	if (en->conn_open)
		(void)rpc_send_parts(en->conn, FRAME_DATA, head, head_len, bytes, len);
}

static void take_message(struct engine *en, const struct frame *frame)
{
	Gantry__MigrationMessage *m = gantry__migration_message__unpack(NULL, frame->len, frame->payload);

	if (!m) {
		engine__fail(en, "host '%s' sent a message that cannot be read", en->goal->peer_host);
		return;
	}
	if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_FAILED)
		engine__fail(en, "%s: %.400s", en->goal->peer_host, m->failed->reason);
	else if (engine__is_incoming(en))
		engine_destination__on_message(en, m);
	else
		engine_source__on_message(en, m);
	gantry__migration_message__free_unpacked(m, NULL);
}

static void take_chunk(struct engine *en, const struct frame *frame)
{
	struct stream_chunk chunk;
	struct err err = {0};
	int rc = stream_chunk_parse(frame->payload, frame->len, &chunk, &err);
	bool incoming = engine__is_incoming(en);

	if (rc == 0 && (chunk.channel != 0 || chunk.reply == incoming))
		rc = err_set(&err, EPROTO, "migration stream: a chunk of channel %u in the wrong direction", chunk.channel);
	if (rc == 0)
		rc = stream_sum_add(incoming ? &en->forward : &en->reply, &chunk, &err);
	if (rc < 0) {
		engine__fail(en, "%s", err.text);
		return;
	}
	if (incoming)
		engine_destination__on_chunk(en, &chunk);
	else if (en->channel)
		(void)qemu_channel_write(en->channel, chunk.data, chunk.len);
}

static void on_open(struct rpc_conn *conn, void *data)
{
	struct engine *en = data;

	en->conn_open = true;
	if (!engine__is_incoming(en))
		engine_source__on_open(en);
}

static void on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct engine *en = data;

	/* After a failure nothing that comes may reach QEMU: the decision is the log's. */
	if (en->state > ENGINE_COMPLETE)
		return;
	if (frame->kind == FRAME_DATA)
		take_chunk(en, frame);
	else
		take_message(en, frame);
}

static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct engine *en = data;
	bool open = en->conn_open;

	en->conn = NULL;
	en->conn_open = false;
	if (en->state < ENGINE_COMPLETE && !(engine__is_incoming(en) && en->state == ENGINE_GREETING))
		engine__fail(en, "%s host '%s': %s", open ? "lost the connection to" : "no connection to", en->goal->peer_host,
			     err->text[0] ? err->text : "closed by the other side");
}

static void on_drain(struct rpc_conn *conn, void *data)
{
	struct engine *en = data;

	if (en->channel && en->state < ENGINE_FAILED)
		qemu_channel_pause(en->channel, false);
}

const struct rpc_callbacks engine__rpc_callbacks = {.on_open = on_open, .on_frame = on_frame, .on_close = on_close, .on_drain = on_drain};

void engine__close_peer(struct engine *en)
{
	static const struct rpc_callbacks nobody = {0};

	if (!en->conn)
		return;
	rpc_conn_set_callbacks(en->conn, &nobody, NULL);
	rpc_conn_close(en->conn, NULL);
	en->conn = NULL;
	en->conn_open = false;
}

/* ---- time ---- */

static void on_tick(uv_timer_t *tick)
{
	struct engine *en = tick->data;
	uint64_t now = uv_now(en->loop), moved = en->forward.bytes + en->reply.bytes;
	uint32_t deadline_ms = states[en->state].deadline_ms[engine__is_incoming(en)];

	if (moved != en->moved_bytes) {
		en->moved_bytes = moved;
		en->moved_ms = now;
	}
	if (deadline_ms && now - en->moved_ms >= deadline_ms) {
		engine__fail(en, "no progress for %u s while %s", deadline_ms / 1000, states[en->state].name);
		return;
	}
	if (!engine__is_incoming(en))
		engine_source__tick(en);
	if (en->state < ENGINE_FAILED && now - en->reported_ms >= REPORT_MS)
		engine__report(en);
}

static void on_later(uv_timer_t *later)
{
	struct engine *en = later->data;

	engine__move(en, ENGINE_SETTLED);
	uv_timer_stop(&en->tick);
	en->report->settled = true;
	engine__report(en);
	if (en->cb.on_settled)
		en->cb.on_settled(en->data, en, en->settle_rc, &en->settle_err);
}

void engine__settle_later(struct engine *en, int rc, const struct err *err)
{
	en->settle_rc = rc;
	if (rc < 0 && err)
		en->settle_err = *err;
	uv_timer_start(&en->later, on_later, 0, 0);
}

/* ---- the engine's life ---- */

struct engine *engine__new(uv_loop_t *loop, const struct engine_options *o, const struct engine_callbacks *cb, void *data)
{
	struct engine *en = mem_alloc(sizeof(*en));

	en->loop = loop;
	en->cb = *cb;
	en->data = data;
	en->goal = pb_clone(o->goal);
	en->cluster_uuid = str_dup(o->cluster_uuid);
	en->host = str_dup(o->host);
	en->qemu_version = str_dup(o->qemu_version_text);
	en->tls = o->tls;
	en->spare_fd = -1;
	en->report = PB_NEW(Gantry__MigrationReport, gantry__migration_report__init);
	gantry__migration_progress__init(&en->progress);
	gantry__migration_figures__init(&en->figures);
	en->report->progress = &en->progress;
	en->report->figures = &en->figures;
	en->report->job_id = en->progress.job_id = en->goal->job->id;
	en->report->incoming = en->goal->incoming;
	en->report->stage = en->progress.stage = states[ENGINE_GREETING].stage;
	fault_point(engine__is_incoming(en) ? states[ENGINE_GREETING].fault_destination : states[ENGINE_GREETING].fault_source);
	stream_sum_init(&en->forward);
	stream_sum_init(&en->reply);
	uv_update_time(loop);
	en->started_ms = en->state_since_ms = en->moved_ms = uv_now(loop);
	uv_timer_init(loop, &en->tick);
	uv_timer_init(loop, &en->later);
	en->tick.data = en->later.data = en;
	en->open_handles = 2;
	uv_timer_start(&en->tick, on_tick, TICK_MS, TICK_MS);
	return en;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct engine *en = handle->data;

	if (--en->open_handles == 0)
		free(en);
}

void engine_free(struct engine *en)
{
	if (!en)
		return;
	engine__close_peer(en);
	rescue_cancel(en->rescue);
	qemu_channel_close(en->channel);
	if (en->spare_fd >= 0)
		close(en->spare_fd);
	for (struct engine_call *call = en->calls; call; call = call->next)
		call->en = NULL;
	en->report->progress = NULL;
	en->report->figures = NULL;
	gantry__migration_report__free_unpacked(en->report, NULL);
	gantry__migration_goal__free_unpacked(en->goal, NULL);
	stream_sum_free(&en->forward);
	stream_sum_free(&en->reply);
	free(en->cluster_uuid);
	free(en->host);
	free(en->qemu_version);
	uv_close((uv_handle_t *)&en->tick, on_handle_closed);
	uv_close((uv_handle_t *)&en->later, on_handle_closed);
}

bool engine_incoming(const struct engine *en)
{
	return engine__is_incoming(en);
}

const Gantry__MigrationReport *engine_report(const struct engine *en)
{
	return en->report;
}

void engine_qemu_event(struct engine *en, const char *event, json_t *event_data)
{
	const char *status = json_string_value(json_object_get(event_data, "status"));
	json_t *pass = json_object_get(event_data, "pass");

	/* A round is told when it begins: a short migration is over before it is asked about. */
	if (!strcmp(event, "MIGRATION_PASS") && json_is_integer(pass))
		en->progress.round = en->figures.rounds = (uint32_t)json_integer_value(pass);
	if (engine__is_incoming(en))
		engine_destination__on_event(en, event, status ? status : "");
	else
		engine_source__on_event(en, event, status ? status : "");
}

void engine_qemu_died(struct engine *en, const char *log_tail)
{
	struct err ended;

	if (en->rescue) {
		rescue_cancel(en->rescue);
		en->rescue = NULL;
		err_set(&ended, ESRCH, "QEMU of the source has ended");
		engine__settle_later(en, -ESRCH, &ended);
	}
	en->qemu = NULL;
	/* A destination that has died is no complete copy any more, whatever was reported. */
	if (engine__is_incoming(en) && en->state == ENGINE_COMPLETE) {
		engine__move(en, ENGINE_FAILED);
		en->report->ready_to_commit = false;
		en->report->failed = true;
		pb_set_string(&en->report->reason, "QEMU of the complete copy has ended");
		engine__report(en);
		return;
	}
	engine__fail(en, "QEMU on host '%s' has ended: %.350s", en->host, log_tail && *log_tail ? log_tail : "it said nothing");
}

void engine_decide(struct engine *en, bool commit)
{
	if (en->state >= ENGINE_SETTLING)
		return;
	en->committed = commit;
	en->report->ready_to_commit = false;
	engine__move(en, ENGINE_SETTLING);
	engine__close_peer(en);
	if (!engine__is_incoming(en)) {
		engine_source__decide(en);
		return;
	}
	/* The destination's guest is the agent's: continued on COMMIT, killed on ABORT. */
	qemu_channel_close(en->channel);
	en->channel = NULL;
	engine__settle_later(en, 0, NULL);
}
