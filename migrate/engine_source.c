/* The source: reads QEMU's stream, sends it, and pauses where the other host may take over. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/limits.h"
#include "lib/paths.h"
#include "migrate/engine_internal.h"
#include "proto/pb.h"

#define CONNECT_TIMEOUT_MS 10000
#define DEFAULT_DOWNTIME_MS 100
#define FIRST_LIMIT_PART 20   /* of the downtime that is allowed: where QEMU begins */
#define FIT_FROM_ROUND 3      /* the short rounds have not been enough */
#define NO_LIMIT_BYTES_PER_S (UINT64_C(1) << 40) /* QEMU's own default is 128 MiB/s */
#define PROGRESS_MS 500
#define SEND_AHEAD_BYTES (1u << 20) /* the low-water mark of rpc.h: on_drain comes after it was passed */

static uint64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- QEMU's stream ---- */

static void end_if_over(struct engine *en)
{
	Gantry__MigrationEnd end = GANTRY__MIGRATION_END__INIT;
	uint8_t digest[STREAM_DIGEST_BYTES];

	if (en->state != ENGINE_SWITCHING || !en->qemu_completed || !en->channel_ended)
		return;
	stream_sum_digest(&en->forward, digest);
	if (en->test_damage_end)
		digest[0] ^= 1;
	end.bytes = en->forward.bytes;
	end.chunks = en->forward.chunks;
	end.digest = (ProtobufCBinaryData){sizeof(digest), digest};
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_END, &end);
	en->progress.remaining_bytes = 0;
	engine__move(en, ENGINE_VERIFYING);
	engine__report(en);
}

static void on_data(void *data, uint8_t *bytes, size_t len)
{
	struct engine *en = data;

	engine__send_chunk(en, bytes, len, false);
	if (en->conn && rpc_conn_queued(en->conn) > SEND_AHEAD_BYTES)
		qemu_channel_pause(en->channel, true);
}

static void on_eof(void *data)
{
	struct engine *en = data;

	en->channel_ended = true;
	end_if_over(en);
}

static const struct qemu_channel_callbacks channel_callbacks = {.on_data = on_data, .on_eof = on_eof};

/* ---- preparing QEMU ---- */

enum { STEP_STATUS, STEP_CAPABILITIES, STEP_PARAMETERS, STEP_FD, STEP_FD_KEEP, STEP_MIGRATE };

static void next_step(struct engine *en);

static void on_step(struct engine *en, int rc, json_t *ret, const struct err *err)
{
	if (en->state != ENGINE_PREPARING)
		return;
	if (rc < 0) {
		engine__fail(en, "%s", err->text);
		return;
	}
	if (en->step == STEP_STATUS)
		en->was_paused = !json_is_true(json_object_get(ret, "running"));
	if (en->step++ == STEP_MIGRATE) {
		engine__move(en, ENGINE_COPYING);
		engine__report(en);
		return;
	}
	next_step(en);
}

static uint64_t wanted_downtime_ms(const struct engine *en)
{
	const Gantry__Job *job = en->goal->job;

	return job->max_downtime_ms ? job->max_downtime_ms : DEFAULT_DOWNTIME_MS;
}

/* QEMU stops the guest when what remains would take no longer than downtime-limit at the rate that it measures; and it measures how
 * fast the channel's buffers take its bytes, some times the true rate. So it begins with a small part of what is allowed, which a guest
 * that dirties little meets after a short round or two; fit_limit() gives it more when that does not come. */
static uint64_t first_limit_ms(const struct engine *en)
{
	uint64_t part = wanted_downtime_ms(en) / FIRST_LIMIT_PART;

	return part ? part : 1;
}

static json_t *parameters(struct engine *en)
{
	const Gantry__Job *job = en->goal->job;
	uint64_t rate = job->bandwidth_bytes_per_s ? job->bandwidth_bytes_per_s : NO_LIMIT_BYTES_PER_S;

	en->limit_ms = first_limit_ms(en);
	return json_pack("{s:I, s:I}", "max-bandwidth", (json_int_t)rate, "downtime-limit", (json_int_t)en->limit_ms);
}

/* QEMU gets one end of the pair to write to, and a copy of ours, so that it never sees the end of the stream, whatever becomes of
 * this agent: a dead agent stalls the stream, and QEMU does not resume the guest by itself (docs/decisions/migration-keep-socket.md). */
static int open_channel(struct engine *en)
{
	struct err err = {0};
	char name[64];
	int fds[2], rc;

	snprintf(name, sizeof(name), "%d-%" PRIu64, (int)qemu_process_pid(en->qemu), en->goal->job->id);
	rc = qemu_channel_pair(name, fds, &err);
	if (rc == 0) {
		en->spare_fd = fds[0];
		engine__qmp_fd(en, ENGINE_FD_KEEP, fds[1], on_step);
		rc = qemu_channel_open(en->loop, fds[1], &channel_callbacks, en, &en->channel, &err);
	}
	if (rc < 0)
		engine__fail(en, "%s", err.text);
	return rc;
}

static void next_step(struct engine *en)
{
	switch (en->step) {
	case STEP_STATUS:
		engine__qmp(en, "query-status", NULL, on_step);
		break;
	case STEP_CAPABILITIES:
		engine__qmp(en, "migrate-set-capabilities", engine__capabilities(), on_step);
		break;
	case STEP_PARAMETERS:
		engine__qmp(en, "migrate-set-parameters", parameters(en), on_step);
		break;
	case STEP_FD:
		(void)open_channel(en);
		break;
	case STEP_FD_KEEP:
		engine__qmp_fd(en, ENGINE_FD, en->spare_fd, on_step);
		break;
	case STEP_MIGRATE:
		close(en->spare_fd);
		en->spare_fd = -1;
		engine__qmp(en, "migrate", json_pack("{s:s}", "uri", "fd:" ENGINE_FD), on_step);
		break;
	}
}

/* ---- the peer ---- */

void engine_source__on_open(struct engine *en)
{
	Gantry__MigrationHello hello = GANTRY__MIGRATION_HELLO__INIT;
	const Gantry__Job *job = en->goal->job;

	hello.job_id = job->id;
	hello.domain_uuid = job->domain_uuid;
	hello.generation = job->generation;
	hello.source = en->host;
	hello.destination = en->goal->peer_host;
	hello.token = job->token;
	hello.cluster_uuid = en->cluster_uuid;
	hello.qemu_version = en->qemu_version;
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_HELLO, &hello);
}

void engine_source__on_message(struct engine *en, const Gantry__MigrationMessage *m)
{
	Gantry__MigrationReserve reserve = GANTRY__MIGRATION_RESERVE__INIT;
	uint8_t digest[STREAM_DIGEST_BYTES];

	if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_WELCOME && en->state == ENGINE_GREETING) {
		reserve.spec = en->goal->spec;
		engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_RESERVE, &reserve);
		engine__move(en, ENGINE_RESERVING);
		engine__report(en);
	} else if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_RESERVED && en->state == ENGINE_RESERVING) {
		engine__move(en, ENGINE_PREPARING);
		next_step(en);
	} else if (m->body_case == GANTRY__MIGRATION_MESSAGE__BODY_COMPLETE && en->state == ENGINE_VERIFYING) {
		stream_sum_digest(&en->forward, digest);
		if (m->complete->digest.len != sizeof(digest) || memcmp(m->complete->digest.data, digest, sizeof(digest)) != 0) {
			engine__fail(en, "host '%s' confirmed another image than the one that was sent", en->goal->peer_host);
			return;
		}
		en->figures.total_ms = uv_now(en->loop) - en->started_ms;
		engine__move(en, ENGINE_COMPLETE);
		engine__report(en);
	} else {
		engine__fail(en, "host '%s' sent message %d out of turn", en->goal->peer_host, (int)m->body_case);
	}
}

/* ---- switchover ---- */

static void hand_over(struct engine *en)
{
	if (!en->stopped_ns) /* a guest that was paused before is not paused by us */
		en->stopped_ns = uv_hrtime();
	en->leases_gone = true;
	engine__move(en, ENGINE_HANDING_OVER);
	engine__report(en);
	en->cb.on_hand_over(en->data, en);
}

static void on_continued(struct engine *en, int rc, json_t *ret, const struct err *err)
{
	if (rc < 0)
		engine__fail(en, "%s", err->text);
}

void engine_leases_handed(struct engine *en, int rc, const struct err *err)
{
	Gantry__MigrationStopped stopped = GANTRY__MIGRATION_STOPPED__INIT;

	if (en->state != ENGINE_HANDING_OVER)
		return;
	if (rc < 0) {
		engine__fail(en, "the leases could not be handed over: %s", err ? err->text : strerror(-rc));
		return;
	}
	stopped.stopped_at_ms = wall_ms();
	stopped.rounds = en->figures.rounds;
	stopped.paused_us = (uint32_t)((uv_hrtime() - en->stopped_ns) / 1000);
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_STOPPED, &stopped);
	engine__move(en, ENGINE_SWITCHING);
	engine__qmp(en, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"), on_continued);
	engine__report(en);
}

/* ---- events and progress ---- */

static void on_failure_known(struct engine *en, int rc, json_t *ret, const struct err *err)
{
	const char *desc = rc < 0 ? err->text : json_string_value(json_object_get(ret, "error-desc"));

	engine__fail(en, "QEMU's migration failed on host '%s': %s", en->host, desc ? desc : "it does not say why");
}

void engine_source__on_event(struct engine *en, const char *event, const char *status)
{
	bool alive = en->state >= ENGINE_COPYING && en->state < ENGINE_COMPLETE;

	if (!strcmp(event, "STOP") && en->state <= ENGINE_HANDING_OVER)
		en->stopped_ns = uv_hrtime();
	/* From the hand-over on only a decision may let this guest run: a QEMU that resumes by itself is held again. */
	if (!strcmp(event, "RESUME") && en->leases_gone && en->state <= ENGINE_FAILED)
		engine__qmp(en, "stop", NULL, NULL);
	if (strcmp(event, "MIGRATION") != 0)
		return;
	if (!strcmp(status, "pre-switchover") && en->state <= ENGINE_COPYING) {
		if (en->state == ENGINE_PREPARING) /* the answer to `migrate` is still on its way */
			engine__move(en, ENGINE_COPYING);
		hand_over(en);
	} else if (!strcmp(status, "completed")) {
		en->qemu_completed = true;
		end_if_over(en);
	} else if ((!strcmp(status, "failed") || !strcmp(status, "cancelled")) && alive) {
		engine__qmp(en, "query-migrate", NULL, on_failure_known);
	}
}

static uint64_t number(json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	return json_is_number(value) ? (uint64_t)json_number_value(value) : 0;
}

/* The limit at which QEMU's own threshold means the downtime that the user allows, at the true rate. */
static void fit_limit(struct engine *en, double qemu_mbit_per_s)
{
	uint64_t now = uv_now(en->loop), wanted = wanted_downtime_ms(en), limit;
	double true_rate, qemu_rate = qemu_mbit_per_s * 1e6 / 8;

	true_rate = now > en->sent_ms ? (double)(en->forward.bytes - en->sent_bytes) * 1000 / (double)(now - en->sent_ms) : 0;
	en->sent_bytes = en->forward.bytes;
	en->sent_ms = now;
	if (en->progress.round < FIT_FROM_ROUND || true_rate <= 0 || qemu_rate <= 0)
		return;
	limit = true_rate < qemu_rate ? (uint64_t)((double)wanted * true_rate / qemu_rate) : wanted;
	if (limit < first_limit_ms(en))
		limit = first_limit_ms(en);
	if (limit == en->limit_ms)
		return;
	en->limit_ms = limit;
	engine__qmp(en, "migrate-set-parameters", json_pack("{s:I}", "downtime-limit", (json_int_t)limit), NULL);
}

static void on_progress(struct engine *en, int rc, json_t *ret, const struct err *err)
{
	json_t *ram = json_object_get(ret, "ram");
	Gantry__MigrationRound round = GANTRY__MIGRATION_ROUND__INIT;

	en->asking_progress = false;
	if (rc < 0 || !ram || en->state > ENGINE_COMPLETE)
		return;
	en->progress.remaining_bytes = number(ram, "remaining");
	en->progress.total_bytes = number(ram, "total");
	en->progress.dirty_rate_bytes_per_s = number(ram, "dirty-pages-rate") * number(ram, "page-size");
	en->progress.round = en->figures.rounds = (uint32_t)number(ram, "dirty-sync-count");
	if (en->state != ENGINE_COPYING)
		return;
	fit_limit(en, json_number_value(json_object_get(ram, "mbps")));
	round.round = en->progress.round;
	round.remaining_bytes = en->progress.remaining_bytes;
	engine__send(en, GANTRY__MIGRATION_MESSAGE__BODY_ROUND, &round);
}

void engine_source__tick(struct engine *en)
{
	uint64_t now = uv_now(en->loop);

	if (en->asking_progress || en->state < ENGINE_COPYING || en->state > ENGINE_SWITCHING || now - en->asked_ms < PROGRESS_MS)
		return;
	en->asked_ms = now;
	en->asking_progress = true;
	engine__qmp(en, "query-migrate", NULL, on_progress);
}

/* ---- ends ---- */

/* Before the leases were offered the guest runs here and can run nowhere else: the useless copying stops at once. Later QEMU is left as
 * it is, paused, its stream open and silent, until the log has decided. */
void engine_source__on_fail(struct engine *en, enum engine_state was)
{
	if ((was == ENGINE_PREPARING || was == ENGINE_COPYING) && en->channel && en->qemu && qemu_process_qmp(en->qemu))
		engine__qmp(en, "migrate_cancel", NULL, NULL);
}

static void on_rescued(void *data, int rc, const struct err *err)
{
	struct engine *en = data;

	en->rescue = NULL;
	qemu_channel_close(en->channel);
	en->channel = NULL;
	engine__settle_later(en, rc, err);
}

void engine_source__decide(struct engine *en)
{
	struct err err = {0};

	/* COMMIT: QEMU keeps its copy of our end, so that closing ours changes nothing for it until the agent kills it. */
	if (!en->committed && en->qemu && en->channel) {
		qemu_channel_pause(en->channel, true);
		en->rescue = rescue_start(en->loop, en->qemu, en->was_paused, on_rescued, en);
		return;
	}
	if (!en->committed && !en->qemu)
		err_set(&err, ESRCH, "QEMU of the source has ended");
	qemu_channel_close(en->channel);
	en->channel = NULL;
	engine__settle_later(en, err.text[0] ? -ESRCH : 0, &err);
}

int engine_source_start(uv_loop_t *loop, const struct engine_options *o, struct qemu_process *qemu, const struct engine_callbacks *cb, void *data,
			struct engine **ret, struct err *err)
{
	struct engine *en;
	int rc;

	if (!qemu_process_qmp(qemu))
		return err_set(err, ENOTCONN, "domain '%s': QEMU does not answer", o->goal->spec->name);
	en = engine__new(loop, o, cb, data);
	en->qemu = qemu;
	rc = rpc_connect_tls(loop, en->goal->peer_address, PORT_MIGRATION, en->tls, en->goal->peer_host, CONNECT_TIMEOUT_MS,
			     1u << FRAME_MIGRATION | 1u << FRAME_DATA, &engine__rpc_callbacks, en, &en->conn, err);
	if (rc < 0) {
		engine_free(en);
		return rc;
	}
	*ret = en;
	return 0;
}
