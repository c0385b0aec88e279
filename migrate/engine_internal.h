/* What the files of the engine share. engine.c: states, reports, the peer's connection, QMP. engine_source.c and
 * engine_destination.c: what each side does. */
#pragma once

#include "migrate/engine.h"
#include "migrate/qemu_channel.h"
#include "migrate/rescue.h"
#include "migrate/stream.h"
#include "proto/migration.pb-c.h"

/* Names of descriptors handed to QEMU. */
#define ENGINE_FD "gantry-migration"
#define ENGINE_FD_KEEP "gantry-migration-keep"

enum engine_state {
	ENGINE_GREETING,     /* source: connecting, hello; destination: waits for one */
	ENGINE_RESERVING,    /* the destination's agent starts QEMU */
	ENGINE_PREPARING,    /* QMP commands up to migrate / migrate-incoming */
	ENGINE_COPYING,      /* the guest runs on the source */
	ENGINE_HANDING_OVER, /* source: paused at pre-switchover, leases change hands */
	ENGINE_SWITCHING,    /* the last bytes */
	ENGINE_VERIFYING,    /* END sent / compared, QEMU finishes */
	ENGINE_COMPLETE,     /* waits for the log's decision */
	ENGINE_FAILED,       /* cannot go on; waits for the log's decision */
	ENGINE_SETTLING,     /* decided: doing it */
	ENGINE_SETTLED,
	ENGINE_STATES,
};

struct engine;
/* A QMP command under way. It outlives its engine: QEMU's answer may come after engine_free(). */
struct engine_call {
	struct engine_call *next, **at;
	struct engine *en; /* NULL: nobody is interested any more */
	void (*fn)(struct engine *en, int rc, json_t *ret, const struct err *err);
};

struct engine {
	uv_loop_t *loop;
	struct engine_callbacks cb;
	void *data;
	Gantry__MigrationGoal *goal;
	char *cluster_uuid, *host, *qemu_version;
	struct tls_context *tls;
	enum engine_state state;
	Gantry__MigrationReport *report;
	Gantry__MigrationProgress progress; /* report->progress points here */
	Gantry__MigrationFigures figures;   /* report->figures points here */
	struct rpc_conn *conn;
	bool conn_open;
	struct qemu_process *qemu; /* NULL: none yet, or dead */
	struct qemu_channel *channel;
	int spare_fd;              /* QEMU's end of the pair, until QEMU has it */
	struct engine_call *calls;
	struct stream_sum forward, reply;
	int step;                  /* of PREPARING */
	struct rescue *rescue;
	bool was_paused;           /* source: the guest did not run when the migration began */
	bool leases_gone;          /* source: from the hand-over on only a decision may let the guest run */
	bool qemu_completed, channel_ended, asking_progress;
	bool committed;
	uint64_t started_ms, state_since_ms, moved_ms, moved_bytes, asked_ms, reported_ms;
	uint64_t limit_ms;                /* QEMU's downtime-limit as it is set now */
	uint64_t sent_bytes, sent_ms;      /* at the last look: for the true rate */
	uint64_t stopped_ns;       /* source: when the guest was paused; destination: when it must have been */
	uv_timer_t tick, later;
	int open_handles;
	int settle_rc;
	struct err settle_err;
	/* Tests only: the chunk of this number is damaged after its checksum was taken; END is falsified. */
	uint64_t test_damage_chunk;
	bool test_damage_end;
};

/* ---- engine.c ---- */
struct engine *engine__new(uv_loop_t *loop, const struct engine_options *o, const struct engine_callbacks *cb, void *data);
void engine__move(struct engine *en, enum engine_state state);
/* Reports failed with the reason and tells the peer; harmless in states where nothing can fail any more. */
void engine__fail(struct engine *en, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void engine__report(struct engine *en);
/* args: stolen. fn (NULL: nobody cares) is called unless the engine is freed first. A QEMU that cannot be asked fails the engine. */
void engine__qmp(struct engine *en, const char *command, json_t *args, void (*fn)(struct engine *, int, json_t *, const struct err *));
void engine__qmp_fd(struct engine *en, const char *fdname, int fd, void (*fn)(struct engine *, int, json_t *, const struct err *));
json_t *engine__capabilities(void);
void engine__send(struct engine *en, Gantry__MigrationMessage__BodyCase which, void *body);
/* Sends bytes read from QEMU; counts them. */
void engine__send_chunk(struct engine *en, uint8_t *bytes, size_t len, bool reply);
void engine__settle_later(struct engine *en, int rc, const struct err *err);
void engine__close_peer(struct engine *en);
bool engine__is_incoming(const struct engine *en);
extern const struct rpc_callbacks engine__rpc_callbacks;

/* ---- the two sides ---- */
void engine_source__on_message(struct engine *en, const Gantry__MigrationMessage *m);
void engine_source__on_open(struct engine *en);
void engine_source__on_event(struct engine *en, const char *event, const char *status);
void engine_source__on_fail(struct engine *en, enum engine_state was);
void engine_source__on_drain(struct engine *en);
void engine_source__tick(struct engine *en);
void engine_source__decide(struct engine *en);
void engine_destination__on_message(struct engine *en, const Gantry__MigrationMessage *m);
void engine_destination__on_chunk(struct engine *en, const struct stream_chunk *chunk);
void engine_destination__on_event(struct engine *en, const char *event, const char *status);
