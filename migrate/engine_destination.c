/* The destination: feeds QEMU with what comes, and says when it has all of it. */
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/limits.h"
#include "migrate/engine_internal.h"
#include "proto/pb.h"

/* ---- QEMU's stream ---- */

static void on_data(void *data, uint8_t *bytes, size_t len)
{
	engine__send_chunk(data, bytes, len, true);
}

/* QEMU closes its end when it has all, and when it gives up: its `completed`, or its death, says which. */
static void on_eof(void *data)
{
	struct engine *en = data;

	en->channel_ended = true;
}

static void on_drain(void *data)
{
	struct engine *en = data;

	if (en->conn)
		rpc_conn_pause_reading(en->conn, false);
}

static const struct qemu_channel_callbacks channel_callbacks = {.on_data = on_data, .on_eof = on_eof, .on_drain = on_drain};

void engine_destination__on_chunk(struct engine *en, const struct stream_chunk *chunk)
{
	if (en->state != ENGINE_COPYING && en->state != ENGINE_SWITCHING) {
		engine__fail(en, "host '%s' sent memory out of turn", en->goal->peer_host);
		return;
	}
	/* A QEMU that reads no more is dying: engine_qemu_died() brings its last words. */
	(void)qemu_channel_write(en->channel, chunk->data, chunk->len);
	if (qemu_channel_queued(en->channel) > LIMIT_MIGRATION_QUEUE_BYTES)
		rpc_conn_pause_reading(en->conn, true);
}

/* ---- preparing QEMU ---- */

enum { STEP_CAPABILITIES, STEP_FD, STEP_INCOMING };

static void next_step(struct engine *en);

static void on_step(struct engine *en, int rc, json_t *ret, const struct err *err)
{
	Gantry__MigrationReserved reserved = GANTRY__MIGRATION_RESERVED__INIT;

	if (en->state != ENGINE_PREPARING)
		return;
	if (rc < 0) {
		engine__fail(en, "%s", err->text);
		return;
	}
	if (en->step++ < STEP_INCOMING) {
		next_step(en);
		return;
	}
	engine__move(en, ENGINE_COPYING);
	reserved.prepared_ms = uv_now(en->loop) - en->started_ms;
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_RESERVED, &reserved);
	engine__report(en);
}

/* QEMU has no copy of our end here: a copy that will never be complete shall end with its agent. */
static void open_channel(struct engine *en)
{
	struct err err = {0};
	int fds[2], rc;

	rc = qemu_channel_pair(NULL, fds, &err);
	if (rc == 0) {
		engine__qmp_fd(en, ENGINE_FD, fds[0], on_step);
		close(fds[0]);
		rc = qemu_channel_open(en->loop, fds[1], &channel_callbacks, en, &en->channel, &err);
	}
	if (rc < 0)
		engine__fail(en, "%s", err.text);
}

static void next_step(struct engine *en)
{
	switch (en->step) {
	case STEP_CAPABILITIES:
		engine__qmp(en, "migrate-set-capabilities", engine__capabilities(), on_step);
		break;
	case STEP_FD:
		open_channel(en);
		break;
	case STEP_INCOMING:
		engine__qmp(en, "migrate-incoming", json_pack("{s:s}", "uri", "fd:" ENGINE_FD), on_step);
		break;
	}
}

void engine_reserved(struct engine *en, int rc, struct qemu_process *qemu, const struct err *err)
{
	if (en->state != ENGINE_RESERVING)
		return;
	if (rc < 0) {
		engine__fail(en, "%s", err ? err->text : strerror(-rc));
		return;
	}
	en->qemu = qemu;
	engine__move(en, ENGINE_PREPARING);
	next_step(en);
}

/* ---- the end of the stream ---- */

static void on_status(struct engine *en, int rc, json_t *ret, const struct err *err)
{
	Gantry__MigrationComplete complete = GANTRY__MIGRATION_COMPLETE__INIT;
	const char *status = json_string_value(json_object_get(ret, "status"));
	uint8_t digest[STREAM_DIGEST_BYTES];

	if (en->state != ENGINE_VERIFYING)
		return;
	if (rc < 0) {
		engine__fail(en, "%s", err->text);
		return;
	}
	/* `completed` is told a moment before the machine has left this state. */
	if (status && !strcmp(status, "inmigrate")) {
		engine__qmp(en, "query-status", NULL, on_status);
		return;
	}
	if (!status || (strcmp(status, "paused") && strcmp(status, "prelaunch"))) {
		engine__fail(en, "QEMU of the copy is '%s' and should be paused", status ? status : "unknown");
		return;
	}
	stream_sum_digest(&en->forward, digest);
	complete.bytes = en->forward.bytes;
	complete.chunks = en->forward.chunks;
	complete.digest = (ProtobufCBinaryData){sizeof(digest), digest};
	engine__move(en, ENGINE_COMPLETE);
	en->report->ready_to_commit = true;
	engine__report(en);
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_COMPLETE, &complete);
}

static void verify_if_over(struct engine *en)
{
	if (en->state == ENGINE_VERIFYING && en->qemu_completed)
		engine__qmp(en, "query-status", NULL, on_status);
}

static void take_end(struct engine *en, const Gantry__MigrationEnd *end)
{
	uint8_t digest[STREAM_DIGEST_BYTES];

	stream_sum_digest(&en->forward, digest);
	if (end->bytes != en->forward.bytes || end->chunks != en->forward.chunks) {
		engine__fail(en, "%" PRIu64 " bytes in %" PRIu64 " chunks arrived, %" PRIu64 " in %" PRIu64 " were sent", en->forward.bytes,
			     en->forward.chunks, end->bytes, end->chunks);
		return;
	}
	if (end->digest.len != sizeof(digest) || memcmp(end->digest.data, digest, sizeof(digest)) != 0) {
		engine__fail(en, "the image that arrived is not the one that was sent (digest)");
		return;
	}
	engine__move(en, ENGINE_VERIFYING);
	verify_if_over(en);
}

/* ---- the peer ---- */

static void take_reserve(struct engine *en, const Gantry__MigrationReserve *reserve)
{
	if (!reserve->spec || strcmp(reserve->spec->uuid, en->goal->job->domain_uuid) != 0) {
		engine__fail(en, "host '%s' wants room for another domain than the task's", en->goal->peer_host);
		return;
	}
	engine__move(en, ENGINE_RESERVING);
	engine__report(en);
	en->cb.on_reserve(en->data, en);
}

void engine_destination__on_message(struct engine *en, const Gantry__MigrationMessage *m)
{
	if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_RESERVE && en->state == ENGINE_GREETING) {
		take_reserve(en, m->reserve);
	} else if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_ROUND && en->state == ENGINE_COPYING) {
		en->progress.round = en->figures.rounds = m->round->round;
		en->progress.remaining_bytes = m->round->remaining_bytes;
	} else if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_STOPPED && en->state == ENGINE_COPYING) {
		en->figures.rounds = m->stopped->rounds;
		en->stopped_ns = uv_hrtime() - (uint64_t)m->stopped->paused_us * 1000;
		engine__move(en, ENGINE_SWITCHING);
		engine__report(en);
	} else if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_END && en->state == ENGINE_SWITCHING) {
		take_end(en, m->end);
	} else {
		engine__fail(en, "host '%s' sent message %d out of turn", en->goal->peer_host, (int)m->body_case);
	}
}

void engine_destination__on_event(struct engine *en, const char *event, const char *status)
{
	if (!strcmp(event, "MIGRATION") && !strcmp(status, "completed")) {
		en->qemu_completed = true;
		verify_if_over(en);
	} else if (!strcmp(event, "MIGRATION") && !strcmp(status, "failed")) {
		engine__fail(en, "QEMU of the copy could not read the image");
	} else if (!strcmp(event, "RESUME") && !en->report->running && (en->state == ENGINE_COMPLETE || en->committed)) {
		en->report->running = true;
		en->report->stage = en->progress.stage = GANTRY__MIGRATION_STAGE__STAGE_ACTIVATION;
		en->figures.downtime_ms = (uv_hrtime() - en->stopped_ns + 500000) / 1000000;
		en->figures.total_ms = uv_now(en->loop) - en->started_ms;
		engine__report(en);
	}
}

/* ---- the beginning ---- */

static int check_hello(const struct engine *en, const struct rpc_conn *conn, const Gantry__MigrationHello *hello, struct err *err)
{
	const Gantry__Job *job = en->goal->job;
	const char *peer = rpc_conn_peer(conn);

	if (!peer || strcmp(peer, hello->source) || strcmp(peer, en->goal->peer_host))
		return err_set(err, EACCES, "task %" PRIu64 ": host '%s' says it is '%.64s'; the source is '%s'", job->id, peer ? peer : "(unknown)", hello->source,
			       en->goal->peer_host);
	if (strcmp(hello->cluster_uuid, en->cluster_uuid) || strcmp(hello->destination, en->host))
		return err_set(err, EACCES, "task %" PRIu64 ": the hello is for host '%.64s' of another cluster or another host", job->id, hello->destination);
	if (hello->job_id != job->id || hello->generation != job->generation || strcmp(hello->domain_uuid, job->domain_uuid))
		return err_set(err, ESTALE, "task %" PRIu64 ": the hello is of another task, domain or generation", job->id);
	if (!job->token.len || hello->token.len != job->token.len || CRYPTO_memcmp(hello->token.data, job->token.data, job->token.len) != 0)
		return err_set(err, EACCES, "task %" PRIu64 ": wrong token", job->id);
	if (hello->channel != 0)
		return err_set(err, EPROTO, "task %" PRIu64 ": there is no channel %u", job->id, hello->channel);
	return 0;
}

int engine_destination_accept(struct engine *en, struct rpc_conn *conn, const Gantry__MigrationHello *hello, struct err *err)
{
	Gantry__MigrationWelcome welcome = GANTRY__MIGRATION_WELCOME__INIT;
	int rc = check_hello(en, conn, hello, err);

	if (rc < 0)
		return rc;
	if (en->conn || en->state != ENGINE_GREETING)
		return err_set(err, EALREADY, "task %" PRIu64 ": the channel is open already, or was", en->goal->job->id);
	en->conn = conn;
	en->conn_open = true;
	rpc_conn_set_callbacks(conn, &engine__rpc_callbacks, en);
	welcome.qemu_version = en->qemu_version;
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_WELCOME, &welcome);
	return 0;
}

int engine_destination_new(uv_loop_t *loop, const struct engine_options *o, const struct engine_callbacks *cb, void *data, struct engine **ret,
			   struct err *err)
{
	if (!o->goal->job->token.len)
		return err_set(err, EINVAL, "task %" PRIu64 ": has no token", o->goal->job->id);
	*ret = engine__new(loop, o, cb, data);
	return 0;
}
