#include "storage/storage_async.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "proto/pb.h"
#include "storage/storage_internal.h"

#define CHECK_EVERY_MS 10000
#define CHECK_LOST_MS 2000 /* a pool that is away: its domains, and those that may come, wait for the good news */
#define STALLED_AFTER_MS 15000 /* more than one bounded operation of a pool takes */

/* Lives until it is gone from the goals, idle and not referred to. */
struct pool_handle {
	struct pool_handle *next;
	struct storage *storage;
	Gantry__Pool *pool;
	struct pool_fs *fs;        /* touched by the worker only, while busy */
	uv_work_t work;
	struct storage_op *queue, *running;
	size_t n_queue, refs;
	bool busy, gone, checking;
	uint64_t checked_ms;     /* when the last look began */
	uint64_t busy_since_ms;
	Gantry__PoolReport *report;
};

struct storage {
	uv_loop_t *loop;
	char *host;
	struct pool_handle *pools;
	uv_timer_t timer;
	Gantry__PoolReport **reports; /* borrowed from the handles */
	bool closing, timer_closed;
};

/* ---- the queue of a pool ---- */

struct storage_op *storage__op_new(storage_work work, storage_after after, void *data)
{
	struct storage_op *op = mem_alloc(sizeof(*op));

	op->work = work;
	op->after = after;
	op->data = data;
	return op;
}

void storage__op_free(struct storage_op *op)
{
	free(op->text);
	free(op);
}

uv_loop_t *storage__loop(struct storage *st)
{
	return st->loop;
}

const char *storage__host(const struct storage *st)
{
	return st->host;
}

static void storage_free_if_idle(struct storage *st)
{
	if (!st->closing || !st->timer_closed || st->pools)
		return;
	free(st->reports);
	free(st->host);
	free(st);
}

static void handle_free(struct pool_handle *h)
{
	struct storage *st = h->storage;
	struct pool_handle **at = &st->pools;

	while (*at != h)
		at = &(*at)->next;
	*at = h->next;
	pool_fs_close(h->fs);
	gantry__pool__free_unpacked(h->pool, NULL);
	gantry__pool_report__free_unpacked(h->report, NULL);
	free(h);
	storage_free_if_idle(st);
}

static void run(uv_work_t *work)
{
	struct pool_handle *h = work->data;
	struct storage_op *op = h->running;

	op->rc = h->fs ? 0 : pool_fs_open(h->pool, &h->fs, &op->err);
	if (op->rc == 0)
		op->rc = op->work(h->fs, op);
	/* A server that was away, or another folder at the pool's path: the next operation opens it anew. */
	if (op->rc == -ETIMEDOUT || op->rc == -EIO || op->rc == -ENXIO) {
		pool_fs_close(h->fs);
		h->fs = NULL;
	}
}

static void start_next(struct pool_handle *h);

static void op_end(struct storage_op *op)
{
	op->after(op);
	storage__op_free(op);
}

/* h stays busy meanwhile: what the callbacks queue waits for its turn. */
static void after_run(uv_work_t *work, int status)
{
	struct pool_handle *h = work->data;
	struct storage_op *op = h->running, *waiting = NULL;
	struct err err = op->err;

	h->running = NULL;
	if (op->rc == -ETIMEDOUT) {
		waiting = h->queue;
		h->queue = NULL;
		h->n_queue = 0;
	}
	op_end(op);
	while (waiting) {
		op = waiting;
		waiting = op->next;
		op->rc = -ETIMEDOUT;
		op->err = err;
		op_end(op);
	}
	h->busy = false;
	start_next(h);
}

static void start_next(struct pool_handle *h)
{
	if (h->busy)
		return;
	if (!h->queue) {
		if (h->gone && h->refs == 0)
			handle_free(h);
		return;
	}
	h->running = h->queue;
	h->queue = h->queue->next;
	h->n_queue--;
	h->busy = true;
	h->busy_since_ms = uv_now(h->storage->loop);
	h->work.data = h;
	uv_queue_work(h->storage->loop, &h->work, run, after_run);
}

int storage__op_queue(struct pool_handle *h, struct storage_op *op, struct err *err)
{
	struct storage_op **end = &h->queue;

	if (h->n_queue >= LIMIT_POOL_QUEUE)
		return err_set(err, ETIMEDOUT, "pool '%s' does not answer: %d operations wait for it already", h->pool->name,
			       LIMIT_POOL_QUEUE);
	while (*end)
		end = &(*end)->next;
	op->next = NULL;
	*end = op;
	h->n_queue++;
	start_next(h);
	return 0;
}

static struct pool_handle *find(const struct storage *st, const char *name)
{
	for (struct pool_handle *h = st->pools; h; h = h->next)
		if (!h->gone && strcmp(h->pool->name, name) == 0)
			return h;
	return NULL;
}

int storage__pool_ref(struct storage *st, const char *name, struct pool_handle **ret, struct err *err)
{
	struct pool_handle *h = find(st, name);

	if (!h)
		return err_set(err, ENOENT, "pool '%s' is not known on this host; see 'clusterctl pool list'", name);
	h->refs++;
	*ret = h;
	return 0;
}

struct pool_handle *storage__pool_unref(struct pool_handle *h)
{
	if (h) {
		h->refs--;
		start_next(h);
	}
	return NULL;
}

/* ---- pools ---- */

struct check {
	struct pool_handle *handle;
	uint64_t total, available;
};

static int check_work(struct pool_fs *fs, struct storage_op *op)
{
	struct check *c = op->data;

	return pool_fs_space(fs, &c->total, &c->available, &op->err);
}

static void check_after(struct storage_op *op)
{
	struct check *c = op->data;
	Gantry__PoolReport *r = c->handle->report;

	c->handle->checking = false;
	r->ok = op->rc == 0;
	r->checked = true;
	pb_set_string(&r->reason, op->rc < 0 ? op->err.text : "");
	if (r->ok) {
		r->capacity_bytes = c->total;
		r->free_bytes = c->available;
	}
	free(c);
}

static void check(struct pool_handle *h)
{
	struct check *c;
	struct storage_op *op;

	if (h->checking || h->gone)
		return;
	h->checked_ms = uv_now(h->storage->loop);
	c = mem_alloc(sizeof(*c));
	c->handle = h;
	op = storage__op_new(check_work, check_after, c);
	h->checking = true;
	if (storage__op_queue(h, op, NULL) == 0)
		return;
	h->checking = false;
	free(c);
	storage__op_free(op);
}

static void on_timer(uv_timer_t *timer)
{
	struct storage *st = timer->data;

	for (struct pool_handle *h = st->pools; h; h = h->next)
		if (!h->report->ok || uv_now(st->loop) - h->checked_ms >= CHECK_EVERY_MS)
			check(h);
}

int storage_new(uv_loop_t *loop, const char *host, struct storage **ret)
{
	struct storage *st = mem_alloc(sizeof(*st));

	st->loop = loop;
	st->host = str_dup(host);
	uv_timer_init(loop, &st->timer);
	st->timer.data = st;
	uv_timer_start(&st->timer, on_timer, CHECK_LOST_MS, CHECK_LOST_MS);
	*ret = st;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct storage *st = handle->data;

	st->timer_closed = true;
	storage_free_if_idle(st);
}

/* Lets go of every pool that is not among these. */
static void let_go(struct storage *st, Gantry__Pool *const *pools, size_t n)
{
	struct pool_handle *next;

	for (struct pool_handle *h = st->pools; h; h = next) {
		bool wanted = false;

		next = h->next;
		for (size_t i = 0; i < n && !wanted; i++)
			wanted = pb_equal(h->pool, pools[i]);
		if (wanted || h->gone)
			continue;
		h->gone = true;
		start_next(h);
	}
}

void storage_free(struct storage *st)
{
	if (!st)
		return;
	let_go(st, NULL, 0);
	st->closing = true;
	uv_close((uv_handle_t *)&st->timer, on_timer_closed);
}

static void handle_add(struct storage *st, const Gantry__Pool *pool)
{
	struct pool_handle *h = mem_alloc(sizeof(*h));

	h->storage = st;
	h->pool = pb_clone(pool);
	h->report = PB_NEW(Gantry__PoolReport, gantry__pool_report__init);
	pb_set_string(&h->report->name, pool->name);
	pb_set_string(&h->report->reason, "not checked yet");
	h->next = st->pools;
	st->pools = h;
	check(h);
}

void storage_set_pools(struct storage *st, Gantry__Pool *const *pools, size_t n)
{
	let_go(st, pools, n);
	for (size_t i = 0; i < n; i++)
		if (!find(st, pools[i]->name))
			handle_add(st, pools[i]);
}

const Gantry__Pool *storage_find_pool(const struct storage *st, const char *name)
{
	const struct pool_handle *h = find(st, name);

	return h ? h->pool : NULL;
}

/* A folder on a dead mount blocks its thread for ever: no verdict comes, and that is the verdict. */
static void note_stalled(struct pool_handle *h)
{
	uint64_t since = h->busy ? uv_now(h->storage->loop) - h->busy_since_ms : 0;
	char text[80];

	if (since < STALLED_AFTER_MS)
		return;
	h->report->ok = false;
	h->report->checked = true;
	snprintf(text, sizeof(text), "it has not answered for %u s", (unsigned)(since / 1000));
	pb_set_string(&h->report->reason, text);
}

size_t storage_pool_reports(struct storage *st, Gantry__PoolReport *const **ret)
{
	size_t n = 0;

	for (struct pool_handle *h = st->pools; h; h = h->next) {
		if (h->gone)
			continue;
		note_stalled(h);
		st->reports = mem_realloc(st->reports, (n + 1) * sizeof(*st->reports));
		st->reports[n++] = h->report;
	}
	*ret = st->reports;
	return n;
}
