/* Two hosts on one loop for the tests of the migration engine: real QEMUs under TCG, real TLS on loopback, and hands that
 * cut, kill and damage. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/paths.h"
#include "migrate/engine_internal.h"
#include "proto/pb.h"
#include "proto/tls.h"

#define FIXTURE_DEADLINE_MS 30000
#define FIXTURE_TICK_MS 10
#define FIXTURE_UUID "01234567-89ab-cdef-0123-456789abcdef"
#define FIXTURE_CLUSTER "c1c1c1c1-0000-4000-8000-000000000001"
#define FIXTURE_RAM_MIB 160
#define FIXTURE_DATA_MIB 96 /* random bytes at 16 MiB of the guest's memory */

struct side {
	struct pair *pair;
	const char *name;
	char dir[96], log[128], sockets[2][200];
	struct tls_context *tls;
	struct qemu_process *qemu;
	struct engine *engine;
	Gantry__MigrationGoal *goal;
	int readies, exits, settled, settle_rc, hand_overs, reserves;
	bool ready_reported, failed_reported;
	Gantry__MigrationStage stage;
	char reason[600], last_words[600];
	struct err settle_err;
};

struct pair {
	uv_loop_t loop;
	uv_timer_t guard;
	uint64_t deadline_ms;
	char dir[64], address[32];
	struct rpc_listener *listener;
	struct side source, destination;
	char refusal[600];
	/* behaviour */
	int lease_rc, reserve_rc;
	bool hold_hand_over; /* the leases' answer is given by the test */
	void (*at_hand_over)(struct pair *p);
};

#define RUN_UNTIL(p, condition)                                                                                                                      \
	do {                                                                                                                                         \
		while (!(condition))                                                                                                                 \
			uv_run(&(p)->loop, UV_RUN_ONCE);                                                                                             \
	} while (0)

/* Ticks all the time: UV_RUN_ONCE runs due timers first and then sleeps, so that the loop must never be without a next one. */
static void guard_fired(uv_timer_t *timer)
{
	struct pair *p = timer->data;

	if (uv_now(&p->loop) < p->deadline_ms)
		return;
	fail_msg("not there in %d ms; source: stage %d %s; destination: stage %d %s", FIXTURE_DEADLINE_MS, p->source.stage, p->source.reason, p->destination.stage,
		 p->destination.reason);
}

static char fixture_blob[64]; /* what fills the guests' memory, made once */

/* ---- PKI ---- */

static struct buf fixture_ca, fixture_ca_key;

static struct tls_context *fixture_tls(const char *dir, const char *host)
{
	struct buf csr = {0}, key = {0}, cert = {0};
	const struct buf *parts[] = {&fixture_ca, &cert, &key};
	struct tls_context *tls = NULL;
	char paths[3][128];
	struct err err;

	assert_int_equal(pki_make_request(host, &csr, &key, &err), 0);
	assert_int_equal(pki_sign(&fixture_ca, &fixture_ca_key, &csr, host, FIXTURE_CLUSTER, &cert, &err), 0);
	for (int i = 0; i < 3; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/%s.%d.pem", dir, host, i);
		FILE *f = fopen(paths[i], "w");
		assert_int_equal(fwrite(parts[i]->data, 1, parts[i]->len, f), parts[i]->len);
		fclose(f);
		chmod(paths[i], 0600);
	}
	if (tls_context_load(paths[0], paths[1], paths[2], &tls, &err) < 0)
		fail_msg("%s", err.text);
	for (int i = 0; i < 3; i++)
		unlink(paths[i]);
	buf_free(&csr);
	buf_free(&key);
	buf_free(&cert);
	return tls;
}

/* ---- QEMU ---- */

static void side_on_ready(void *data, struct qemu_process *qp)
{
	((struct side *)data)->readies++;
}

static void side_on_event(void *data, struct qemu_process *qp, const char *event, json_t *event_data)
{
	struct side *s = data;

	if (s->engine)
		engine_qemu_event(s->engine, event, event_data);
}

static void side_on_exit(void *data, struct qemu_process *qp, int exit_status, const char *log_tail)
{
	struct side *s = data;

	s->exits++;
	snprintf(s->last_words, sizeof(s->last_words), "%s", log_tail);
	if (s->engine)
		engine_qemu_died(s->engine, log_tail);
}

static const struct qemu_process_callbacks side_callbacks = {.on_ready = side_on_ready, .on_event = side_on_event, .on_exit = side_on_exit};

/* A test that fails leaves its QEMUs behind: they outlive everything, as they should, so the program ends them. */
static pid_t fixture_pids[128];
static int fixture_n_pids;

static void fixture_tidy_up(void)
{
	siginfo_t info;

	for (int i = 0; i < fixture_n_pids; i++)
		if (waitid(P_PID, (id_t)fixture_pids[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0)
			kill(fixture_pids[i], SIGKILL);
	unlink(fixture_blob);
}

static void side_start_qemu(struct side *s, bool incoming)
{
	char memory[32], loader[160];
	const char *argv[] = {"qemu-system-x86_64", "-machine", "pc-q35-7.2", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", memory,
			      "-device", loader, "-chardev", s->sockets[0], "-mon", "chardev=qmp,mode=control", "-chardev", s->sockets[1], "-mon", "chardev=oob,mode=control",
			      incoming ? "-incoming" : NULL, "defer", NULL};
	struct err err;

	snprintf(memory, sizeof(memory), "%dK", FIXTURE_RAM_MIB * 1024 - 8);
	snprintf(loader, sizeof(loader), "loader,file=%s,addr=0x1000000,force-raw=on", fixture_blob);
	if (qemu_process_start(&s->pair->loop, (char *const *)argv, s->dir, s->log, &side_callbacks, s, &s->qemu, &err) < 0)
		fail_msg("%s", err.text);
	assert_true(fixture_n_pids < 128);
	fixture_pids[fixture_n_pids++] = qemu_process_pid(s->qemu);
	s->readies = 0;
	RUN_UNTIL(s->pair, s->readies || s->exits);
	assert_int_equal(s->exits, 0);
}

struct answer { bool come; int rc; char text[64]; bool running; };

static void on_status(void *data, int rc, json_t *ret, const struct err *err)
{
	struct answer *a = data;

	a->come = true;
	a->rc = rc;
	a->running = json_is_true(json_object_get(ret, "running"));
	snprintf(a->text, sizeof(a->text), "%s", rc == 0 && json_object_get(ret, "status") ? json_string_value(json_object_get(ret, "status")) : "");
}

/* One command to the side's QEMU, waited for. */
static struct answer side_ask(struct side *s, const char *command, json_t *args)
{
	struct answer a = {0};

	assert_int_equal(qmp_execute(qemu_process_qmp(s->qemu), command, args, on_status, &a), 0);
	RUN_UNTIL(s->pair, a.come);
	return a;
}

static bool side_runs(struct side *s)
{
	return side_ask(s, "query-status", NULL).running;
}

static void side_kill(struct side *s)
{
	if (!s->qemu)
		return;
	qemu_process_kill(s->qemu, SIGKILL);
	RUN_UNTIL(s->pair, s->exits || !qemu_process_alive(s->qemu));
	qemu_process_free(s->qemu);
	s->qemu = NULL;
}

/* ---- the agent's part ---- */

static void side_on_report(void *data, struct engine *en, const Gantry__MigrationReport *r)
{
	struct side *s = data;

	assert_int_equal(r->job_id, 7);
	assert_false(r->failed && r->ready_to_commit);
	s->stage = r->stage;
	s->ready_reported |= r->ready_to_commit;
	if (r->failed && !s->failed_reported) {
		s->failed_reported = true;
		snprintf(s->reason, sizeof(s->reason), "%s", r->reason);
	}
}

static void side_on_hand_over(void *data, struct engine *en)
{
	struct side *s = data;
	struct pair *p = s->pair;
	struct err err;

	s->hand_overs++;
	if (p->at_hand_over)
		p->at_hand_over(p);
	if (p->hold_hand_over)
		return;
	err_set(&err, EIO, "the pool is away");
	engine_leases_handed(en, p->lease_rc, &err);
}

static void side_on_reserve(void *data, struct engine *en)
{
	((struct side *)data)->reserves++; /* acted on by the test's loop: starting QEMU runs the loop itself */
}

static void side_on_settled(void *data, struct engine *en, int rc, const struct err *err)
{
	struct side *s = data;

	s->settled++;
	s->settle_rc = rc;
	s->settle_err = *err;
}

static const struct engine_callbacks side_engine_callbacks = {side_on_report, side_on_hand_over, side_on_reserve, side_on_settled};

static void pair_on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	Gantry__MigrationMessage *m = gantry__migration_message__unpack(NULL, frame->len, frame->payload);
	struct pair *p = data;
	struct err err = {0};

	assert_non_null(m);
	assert_int_equal(m->body_case, GANTRY__MIGRATION_MESSAGE__BODY_HELLO);
	if (engine_destination_accept(p->destination.engine, conn, m->hello, &err) < 0) {
		snprintf(p->refusal, sizeof(p->refusal), "%s", err.text);
		rpc_conn_close(conn, err.text);
	}
	gantry__migration_message__free_unpacked(m, NULL);
}

static void pair_on_accept(struct rpc_conn *conn, void *data)
{
	static const struct rpc_callbacks callbacks = {.on_frame = pair_on_frame};

	rpc_conn_set_callbacks(conn, &callbacks, data);
}

static Gantry__MigrationGoal *goal_new(struct pair *p, bool incoming)
{
	Gantry__MigrationGoal *g = PB_NEW(Gantry__MigrationGoal, gantry__migration_goal__init);

	g->job = PB_NEW(Gantry__Job, gantry__job__init);
	g->spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	g->job->id = 7;
	g->job->generation = 4;
	pb_set_string(&g->job->domain_uuid, FIXTURE_UUID);
	pb_set_string(&g->spec->uuid, FIXTURE_UUID);
	pb_set_string(&g->spec->name, "web1");
	pb_set_bytes(&g->job->token, "sixteen bytes ok", 16);
	g->incoming = incoming;
	g->source_generation = 3;
	pb_set_string(&g->peer_host, incoming ? "hostA" : "hostB");
	pb_set_string(&g->peer_address, p->address);
	return g;
}

static void side_make_engine(struct side *s)
{
	struct engine_options o = {.goal = s->goal, .cluster_uuid = FIXTURE_CLUSTER, .host = s->name, .qemu_version_text = "7.2.22", .tls = s->tls};
	struct err err = {0};
	int rc;

	if (s->goal->incoming)
		rc = engine_destination_new(&s->pair->loop, &o, &side_engine_callbacks, s, &s->engine, &err);
	else
		rc = engine_source_start(&s->pair->loop, &o, s->qemu, &side_engine_callbacks, s, &s->engine, &err);
	if (rc < 0)
		fail_msg("%s", err.text);
}

static void side_open(struct pair *p, struct side *s, const char *name, bool incoming)
{
	s->pair = p;
	s->name = name;
	snprintf(s->dir, sizeof(s->dir), "%s/%s", p->dir, name);
	assert_int_equal(mkdir(s->dir, 0700), 0);
	snprintf(s->log, sizeof(s->log), "%s/qemu.log", s->dir);
	snprintf(s->sockets[0], sizeof(s->sockets[0]), "socket,id=qmp,path=%s/qmp.sock,server=on,wait=off", s->dir);
	snprintf(s->sockets[1], sizeof(s->sockets[1]), "socket,id=oob,path=%s/oob.sock,server=on,wait=off", s->dir);
	s->tls = fixture_tls(p->dir, name);
	s->goal = goal_new(p, incoming);
}

static void fixture_make_blob(void)
{
	uint64_t x = 88172645463325252u, *block;
	int fd;
	FILE *f;

	if (*fixture_blob)
		return;
	strcpy(fixture_blob, "/tmp/test_engine_blob.XXXXXX");
	fd = mkstemp(fixture_blob);
	assert_true(fd >= 0);
	f = fdopen(fd, "w");
	block = mem_alloc(1 << 20);
	for (int mib = 0; mib < FIXTURE_DATA_MIB; mib++) {
		for (int i = 0; i < (1 << 20) / 8; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			block[i] = x;
		}
		assert_int_equal(fwrite(block, 1 << 20, 1, f), 1);
	}
	fclose(f);
	free(block);
}

/* The hosts, a running guest on hostA, a listener and the destination's engine on hostB. */
static struct pair *pair_open(void)
{
	struct pair *p = mem_alloc(sizeof(*p));
	struct err err;

	strcpy(p->dir, "/tmp/test_engine.XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	fixture_make_blob();
	/* The port is fixed: an address of its own keeps this test apart from all others on loopback. */
	static int nth;
	snprintf(p->address, sizeof(p->address), "127.%d.%d.%d", 10 + ++nth, (getpid() >> 8) & 255, 1 + getpid() % 254);
	uv_loop_init(&p->loop);
	uv_timer_init(&p->loop, &p->guard);
	p->guard.data = p;
	p->deadline_ms = uv_now(&p->loop) + FIXTURE_DEADLINE_MS;
	uv_timer_start(&p->guard, guard_fired, FIXTURE_TICK_MS, FIXTURE_TICK_MS);
	if (!fixture_ca.len)
		assert_int_equal(pki_make_ca("test", FIXTURE_CLUSTER, &fixture_ca, &fixture_ca_key, &err), 0);
	side_open(p, &p->source, "hostA", false);
	side_open(p, &p->destination, "hostB", true);
	side_start_qemu(&p->source, false);
	side_ask(&p->source, "cont", NULL);
	if (rpc_listen_tls(&p->loop, p->address, PORT_MIGRATION, p->destination.tls, true, 1u << FRAME_MIGRATION | 1u << FRAME_DATA, pair_on_accept, p,
			   &p->listener, &err) < 0)
		fail_msg("%s", err.text);
	side_make_engine(&p->destination);
	return p;
}

/* What the destination's agent does when it is asked for room. */
static void pair_reserve(struct pair *p)
{
	struct side *d = &p->destination;
	struct err err;

	RUN_UNTIL(p, d->reserves || p->source.failed_reported);
	if (!d->reserves)
		return;
	if (p->reserve_rc < 0) {
		err_set(&err, ENOMEM, "there is no room for domain 'web1'");
		engine_reserved(d->engine, p->reserve_rc, NULL, &err);
		return;
	}
	side_start_qemu(d, true);
	engine_reserved(d->engine, 0, d->qemu, NULL);
}

static void pair_start(struct pair *p)
{
	side_make_engine(&p->source);
	pair_reserve(p);
}

static void side_decide(struct side *s, bool commit)
{
	engine_decide(s->engine, commit);
	RUN_UNTIL(s->pair, s->settled);
	assert_int_equal(s->settled, 1);
}

static void side_free_engine(struct side *s)
{
	if (s->engine)
		engine_free(s->engine);
	s->engine = NULL;
}

static void side_close(struct side *s)
{
	side_free_engine(s);
	side_kill(s);
	tls_context_free(s->tls);
	gantry__migration_goal__free_unpacked(s->goal, NULL);
	unlink(s->log);
	rmdir(s->dir);
}

static void pair_close(struct pair *p)
{
	side_close(&p->source);
	side_close(&p->destination);
	rpc_listener_close(p->listener);
	uv_close((uv_handle_t *)&p->guard, NULL);
	uv_run(&p->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&p->loop), 0);
	assert_int_equal(rmdir(p->dir), 0);
	free(p);
}

/* The cable is cut: neither side hears of the other again. */
static void pair_cut(struct pair *p)
{
	if (p->source.engine && p->source.engine->conn)
		rpc_conn_close(p->source.engine->conn, NULL);
	else if (p->destination.engine && p->destination.engine->conn)
		rpc_conn_close(p->destination.engine->conn, NULL);
}

/* ABORT: the source goes on, the destination's copy is killed. */
static void pair_abort(struct pair *p)
{
	side_decide(&p->source, false);
	if (p->source.settle_rc < 0)
		fail_msg("%s", p->source.settle_err.text);
	side_decide(&p->destination, false);
	side_free_engine(&p->destination);
	side_kill(&p->destination);
	assert_true(side_runs(&p->source));
}
