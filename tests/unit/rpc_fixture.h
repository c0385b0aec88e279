/* Both ends of connections on one loop, for the tests of rpc. What happens to an end is counted and kept. */
#pragma once

#include <assert.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <cmocka.h>

#include "lib/buf.h"
#include "lib/limits.h"
#include "proto/rpc.h"

enum { FIXTURE_KINDS = 1u << FRAME_CTL | 1u << FRAME_DATA, FIXTURE_ENDS = 600, FIXTURE_DEADLINE_MS = 15000 };

struct fixture;
struct end {
	struct fixture *f;
	struct rpc_conn *conn;
	int opens, frames, closes, drains, rc;
	struct err err;
	struct buf got;      /* payloads, one behind the other */
	uint64_t got_bytes;
	char peer[80];
	/* behaviour */
	bool echo, keep_nothing, pause_at_open, close_at_frame, pause_each_frame;
	const char *refuse_with; /* with close_at_frame */
};

struct fixture {
	uv_loop_t loop;
	uv_timer_t watchdog;
	bool late;
	struct rpc_listener *listener;
	struct end accepted[FIXTURE_ENDS];
	int n_accepted;
	struct end model; /* behaviour of accepted ends */
	char dir[64], path[96];
};

static void fixture_on_open(struct rpc_conn *conn, void *data)
{
	struct end *e = data;

	e->opens++;
	snprintf(e->peer, sizeof(e->peer), "%s", rpc_conn_peer(conn) ? rpc_conn_peer(conn) : "");
	if (e->pause_at_open)
		rpc_conn_pause_reading(conn, true);
}

static void fixture_on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct end *e = data;

	assert_int_equal(e->closes, 0);
	e->frames++;
	e->got_bytes += frame->len;
	if (!e->keep_nothing)
		buf_append(&e->got, frame->payload, frame->len);
	if (e->echo)
		rpc_send(conn, frame->kind, frame->payload, frame->len);
	if (e->pause_each_frame)
		rpc_conn_pause_reading(conn, true);
	if (e->close_at_frame)
		rpc_conn_close(conn, e->refuse_with);
}

static void fixture_on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct end *e = data;

	e->closes++;
	e->rc = rc;
	e->err = *err;
	e->conn = NULL;
}

static void fixture_on_drain(struct rpc_conn *conn, void *data)
{
	((struct end *)data)->drains++;
}

static const struct rpc_callbacks fixture_callbacks = {
	.on_open = fixture_on_open, .on_frame = fixture_on_frame, .on_close = fixture_on_close, .on_drain = fixture_on_drain,
};

static void fixture_on_accept(struct rpc_conn *conn, void *data)
{
	struct fixture *f = data;
	struct end *e = &f->accepted[f->n_accepted++];

	assert_true(f->n_accepted < FIXTURE_ENDS);
	*e = f->model;
	e->f = f;
	e->conn = conn;
	rpc_conn_set_callbacks(conn, &fixture_callbacks, e);
}

static void fixture_on_watchdog(uv_timer_t *timer)
{
	((struct fixture *)timer->data)->late = true;
}

static struct fixture *fixture_new(void)
{
	struct fixture *f = mem_alloc(sizeof(*f));

	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&f->loop);
	uv_timer_init(&f->loop, &f->watchdog);
	f->watchdog.data = f;
	strcpy(f->dir, "rpc-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/test.sock", f->dir);
	return f;
}

/* Runs the loop until the condition holds; fails the test after the deadline. */
#define RUN_UNTIL(f, condition) do { \
	(f)->late = false; \
	uv_timer_start(&(f)->watchdog, fixture_on_watchdog, FIXTURE_DEADLINE_MS, 0); \
	while (!(condition) && !(f)->late) \
		uv_run(&(f)->loop, UV_RUN_ONCE); \
	uv_timer_stop(&(f)->watchdog); \
	if (!(condition)) \
		fail_msg("still not: %s", #condition); \
} while (0)

static inline void fixture_run_ms(struct fixture *f, unsigned ms)
{
	f->late = false;
	uv_timer_start(&f->watchdog, fixture_on_watchdog, ms, 0);
	while (!f->late)
		uv_run(&f->loop, UV_RUN_ONCE);
}

static void fixture_free(struct fixture *f)
{
	rpc_listener_close(f->listener);
	for (int i = 0; i < f->n_accepted; i++)
		if (f->accepted[i].conn)
			rpc_conn_close(f->accepted[i].conn, NULL);
	uv_close((uv_handle_t *)&f->watchdog, NULL);
	/* Ends only when every handle of rpc is gone: a forgotten one hangs here. */
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	for (int i = 0; i < f->n_accepted; i++) {
		assert_int_equal(f->accepted[i].closes, 1);
		buf_free(&f->accepted[i].got);
	}
	unlink(f->path);
	rmdir(f->dir);
	free(f);
}
