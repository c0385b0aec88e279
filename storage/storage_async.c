#include "storage/storage_async.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "proto/pb.h"
#include "storage/pool_fs.h"
#include "storage/storage_internal.h"
#include "storage/volume.h"

#define CHECK_EVERY_MS 10000
#define QUEUE_MAX 256          /* operations that wait for one pool */

struct pool_handle {
	struct pool_handle *next;
	struct storage *storage;
	Gantry__Pool *pool;
	struct pool_fs *fs;        /* touched by the worker only, while busy */
	uv_work_t work;
	struct storage_op *queue, *running;
	size_t n_queue;
	bool busy, gone, checking;
	Gantry__PoolReport *report;
};

struct storage {
	uv_loop_t *loop;
	char *host;
	struct pool_handle *pools;
	uv_timer_t timer;
	Gantry__PoolReport **reports; /* borrowed from the handles */
	size_t n_reports;
	bool closing, timer_closed;
};

/* ---- the queue of a pool ------------------------------------------------------- */

struct storage_op *storage__op_new(struct storage *st, storage_work work, storage_after after, void *data)
{
	struct storage_op *op = mem_alloc(sizeof(*op));

	op->storage = st;
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

	for (struct pool_handle **p = &st->pools; *p; p = &(*p)->next) {
		if (*p != h)
			continue;
		*p = h->next;
		break;
	}
	if (h->fs)
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
	if (!op->rc)
		op->rc = op->work(h->fs, op);
	/* A server that was away, or another folder at the pool's path: the next operation opens it anew. */
	if (h->fs && (op->rc == -ETIMEDOUT || op->rc == -EIO || op->rc == -ENXIO || op->rc == -ESTALE || op->rc == -EHOSTUNREACH)) {
		pool_fs_close(h->fs);
		h->fs = NULL;
	}
}

static void start_next(struct pool_handle *h);

static void after_run(uv_work_t *work, int status)
{
	struct pool_handle *h = work->data;
	struct storage_op *op = h->running;

	h->running = NULL;
	h->busy = false;
	op->after(op);
	storage__op_free(op);
	start_next(h);
}

static void start_next(struct pool_handle *h)
{
	if (h->busy)
		return;
	if (!h->queue) {
		if (h->gone)
			handle_free(h);
		return;
	}
	h->running = h->queue;
	h->queue = h->queue->next;
	h->n_queue--;
	h->busy = true;
	h->work.data = h;
	uv_queue_work(h->storage->loop, &h->work, run, after_run);
}

static struct pool_handle *find(const struct storage *st, const char *name)
{
	for (struct pool_handle *h = st->pools; h; h = h->next)
		if (!h->gone && !strcmp(h->pool->name, name))
			return h;
	return NULL;
}

static int no_pool(const char *name, struct err *err)
{
	return err_set(err, ENOENT, "pool '%s' is not known on this host: see 'clusterctl pool list'", name);
}

static int queue_on(struct pool_handle *h, struct storage_op *op, struct err *err)
{
	struct storage_op **end = &h->queue;

	if (h->n_queue >= QUEUE_MAX)
		return err_set(err, EBUSY, "pool '%s' does not answer: %d operations wait for it already", h->pool->name, QUEUE_MAX);
	while (*end)
		end = &(*end)->next;
	*end = op;
	h->n_queue++;
	start_next(h);
	return 0;
}

int storage__op_queue(struct storage *st, const char *pool, struct storage_op *op, struct err *err)
{
	struct pool_handle *h = find(st, pool);

	return h ? queue_on(h, op, err) : no_pool(pool, err);
}

/* ---- pools ---------------------------------------------------------------------- */

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
	pb_set_string(&r->reason, op->rc ? op->err.text : "");
	r->capacity_bytes = c->total;
	r->free_bytes = c->available;
	free(c);
}

static void check(struct pool_handle *h)
{
	struct check *c;
	struct storage_op *op;

	if (h->checking || h->gone)
		return;
	c = mem_alloc(sizeof(*c));
	c->handle = h;
	op = storage__op_new(h->storage, check_work, check_after, c);
	if (queue_on(h, op, NULL) == 0) {
		h->checking = true;
		return;
	}
	free(c);
	storage__op_free(op);
}

static void on_timer(uv_timer_t *timer)
{
	struct storage *st = timer->data;

	for (struct pool_handle *h = st->pools; h; h = h->next)
		check(h);
}

int storage_new(uv_loop_t *loop, const char *host, struct storage **ret)
{
	struct storage *st = mem_alloc(sizeof(*st));

	st->loop = loop;
	st->host = str_dup(host);
	uv_timer_init(loop, &st->timer);
	st->timer.data = st;
	uv_timer_start(&st->timer, on_timer, CHECK_EVERY_MS, CHECK_EVERY_MS);
	*ret = st;
	return 0;
}

static void handles_let_go(struct storage *st)
{
	struct pool_handle *next;

	for (struct pool_handle *h = st->pools; h; h = next) {
		next = h->next;
		h->gone = true;
		start_next(h);
	}
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct storage *st = handle->data;

	st->timer_closed = true;
	storage_free_if_idle(st);
}

void storage_free(struct storage *st)
{
	if (!st)
		return;
	st->closing = true;
	handles_let_go(st);
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
	struct pool_handle *next;

	for (struct pool_handle *h = st->pools; h; h = next) {
		bool wanted = false;

		next = h->next;
		for (size_t i = 0; i < n && !wanted; i++)
			wanted = pb_equal(h->pool, pools[i]);
		if (!wanted && !h->gone) {
			h->gone = true;
			start_next(h);
		}
	}
	for (size_t i = 0; i < n; i++)
		if (!find(st, pools[i]->name))
			handle_add(st, pools[i]);
}

const Gantry__Pool *storage_find_pool(const struct storage *st, const char *name)
{
	const struct pool_handle *h = find(st, name);

	return h ? h->pool : NULL;
}

size_t storage_pool_reports(struct storage *st, Gantry__PoolReport *const **ret)
{
	st->n_reports = 0;
	for (struct pool_handle *h = st->pools; h; h = h->next) {
		if (h->gone)
			continue;
		st->reports = mem_realloc(st->reports, (st->n_reports + 1) * sizeof(*st->reports));
		st->reports[st->n_reports++] = h->report;
	}
	*ret = st->reports;
	return st->n_reports;
}

/* ---- volumes -------------------------------------------------------------------- */

static bool uses_pool(const Gantry__Disk *disk)
{
	return *disk->pool && !disk->empty;
}

static Gantry__Volume *volume_of(const Gantry__Disk *disk)
{
	Gantry__Volume *v = PB_NEW(Gantry__Volume, gantry__volume__init);

	pb_set_string(&v->pool, disk->pool);
	pb_set_string(&v->name, disk->volume);
	v->format = disk->format;
	return v;
}

int storage_disk_uri(struct storage *st, const Gantry__Disk *disk, char **ret, struct err *err)
{
	const Gantry__Pool *pool;
	Gantry__Volume *v;

	if (!*disk->pool) {
		*ret = str_dup(disk->path);
		return 0;
	}
	pool = storage_find_pool(st, disk->pool);
	if (!pool)
		return no_pool(disk->pool, err);
	if (disk->format != GANTRY__DISK_FORMAT__DISK_FORMAT_RAW && disk->format != GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2)
		return err_set(err, ENOTSUP, "disk %s: volumes of a pool are raw or qcow2", disk->vdev);
	v = volume_of(disk);
	*ret = volume_uri(pool, v);
	gantry__volume__free_unpacked(v, NULL);
	return 0;
}

struct volumes_check {
	storage_cb cb;
	void *data;
	size_t waiting;
	int rc;
	struct err err;
};

static int reach_work(struct pool_fs *fs, struct storage_op *op)
{
	struct buf first = {0};
	int rc = pool_fs_peek(fs, op->text, 512, &first, &op->err);

	buf_free(&first);
	return rc;
}

static void check_done(struct volumes_check *c)
{
	if (--c->waiting)
		return;
	c->cb(c->data, c->rc, c->rc ? &c->err : NULL);
	free(c);
}

static void reach_after(struct storage_op *op)
{
	struct volumes_check *c = op->data;

	if (op->rc && !c->rc) {
		c->rc = op->rc;
		c->err = op->err;
	}
	check_done(c);
}

static void on_nothing(uv_timer_t *timer)
{
	check_done(timer->data);
	uv_close((uv_handle_t *)timer, (uv_close_cb)free);
}

static void reach(struct storage *st, struct volumes_check *c, const Gantry__Disk *disk)
{
	Gantry__Volume *v = volume_of(disk);
	struct storage_op *op = storage__op_new(st, reach_work, reach_after, c);

	op->text = volume_file_name(v);
	gantry__volume__free_unpacked(v, NULL);
	c->waiting++;
	if (storage__op_queue(st, disk->pool, op, &op->err) == 0)
		return;
	op->rc = -ENOENT;
	reach_after(op);
	storage__op_free(op);
}

int storage_check_volumes(struct storage *st, const Gantry__DomainSpec *spec, storage_cb cb, void *data, struct err *err)
{
	struct volumes_check *c = mem_alloc(sizeof(*c));
	uv_timer_t *timer = mem_alloc(sizeof(*timer));

	c->cb = cb;
	c->data = data;
	c->waiting = 1;
	for (size_t i = 0; i < spec->n_disks; i++)
		if (uses_pool(spec->disks[i]))
			reach(st, c, spec->disks[i]);
	/* The last one to be done is this: nothing is called back before we have returned. */
	uv_timer_init(st->loop, timer);
	timer->data = c;
	uv_timer_start(timer, on_nothing, 0, 0);
	return 0;
}

struct volume_request {
	storage_cb cb;
	void *data;
};

static void on_volume(void *data, int rc, uint64_t size_bytes, const struct err *err)
{
	struct volume_request *r = data;

	r->cb(r->data, rc, err);
	free(r);
}

typedef int (*volume_fn)(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, volume_cb cb, void *data, struct err *err);

static int volume_do(struct storage *st, const Gantry__Volume *volume, volume_fn fn, storage_cb cb, void *data, struct err *err)
{
	const Gantry__Pool *pool = storage_find_pool(st, volume->pool);
	struct volume_request *r;
	int rc;

	if (!pool)
		return no_pool(volume->pool, err);
	r = mem_alloc(sizeof(*r));
	r->cb = cb;
	r->data = data;
	rc = fn(st->loop, pool, volume, on_volume, r, err);
	if (rc)
		free(r);
	return rc;
}

int storage_volume_create(struct storage *st, const Gantry__Volume *volume, storage_cb cb, void *data, struct err *err)
{
	return volume_do(st, volume, volume_create, cb, data, err);
}

int storage_volume_delete(struct storage *st, const Gantry__Volume *volume, storage_cb cb, void *data, struct err *err)
{
	return volume_do(st, volume, volume_delete, cb, data, err);
}
