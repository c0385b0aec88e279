#include "clusterd/daemon/store.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/limits.h"

struct store {
	uv_loop_t *loop;
	struct store_db *db;
	struct store_callbacks callbacks;
	void *data;
	struct store_op *head, **tail;   /* waiting */
	struct store_op *running;        /* being written by the worker */
	uv_work_t work;
	uv_idle_t turn_end;              /* what one turn of the loop appends is one transaction */
	bool busy, closing, failed;
	int rc;
	struct err err;
	unsigned delay_ms;
};

struct store *store_new(uv_loop_t *loop, struct store_db *db, const struct store_callbacks *callbacks, void *data)
{
	struct store *store = mem_alloc(sizeof(*store));
	const char *delay = getenv("GANTRY_TEST_FSYNC_DELAY_MS");

	store->loop = loop;
	store->db = db;
	store->callbacks = *callbacks;
	store->data = data;
	store->tail = &store->head;
	uv_idle_init(loop, &store->turn_end);
	store->turn_end.data = store;
	store->delay_ms = delay ? (unsigned)strtoul(delay, NULL, 10) : 0;
	return store;
}

static void work_write(uv_work_t *work)
{
	struct store *store = work->data;

	if (store->running && !store->failed) {
		store->rc = store_db_write(store->db, store->running, &store->err);
		if (store->delay_ms)
			usleep(store->delay_ms * 1000);
	}
	if (!store->running && store->closing) {
		store_db_close(store->db);
		store->db = NULL;
	}
}

static void work_start(struct store *store);

static void on_turn_end_closed(uv_handle_t *handle)
{
	struct store *store = handle->data;
	void (*on_closed)(void *) = store->callbacks.on_closed;
	void *data = store->data;

	free(store);
	on_closed(data);
}

static void work_done(uv_work_t *work, int status)
{
	struct store *store = work->data;
	struct store_op *list = store->running, *next;
	/* An answer may bring the next write: its worker then has the store's own. */
	struct err err = store->err;
	int result = store->rc;
	bool quiet = store->closing;

	assert(status == 0);
	store->busy = false;
	store->running = NULL;
	if (result < 0)
		store->failed = true;
	for (; list; list = next) {
		next = list->next;
		if (!quiet && list->own_snapshot)
			store->callbacks.on_snapshot(store->data, list->snapshot_index, result, &err);
		else if (!quiet && !list->remember)
			store->callbacks.on_batch(store->data, list->serial, result, &err);
		store_op_free(list);
	}
	if (!store->db) {
		uv_close((uv_handle_t *)&store->turn_end, on_turn_end_closed);
		return;
	}
	work_start(store);
}

/* Gives the worker as many waiting ops as one transaction may hold. */
static void work_start(struct store *store)
{
	size_t n = 0, bytes = 0;
	struct store_op **end = &store->head;

	if (store->busy || (!store->head && !store->closing))
		return;
	while (*end && n < LIMIT_STORE_MERGE && bytes < LIMIT_STORE_MERGE_BYTES) {
		bytes += (*end)->bytes;
		n++;
		end = &(*end)->next;
	}
	store->running = n ? store->head : NULL;
	store->head = *end;
	*end = NULL;
	if (!store->head)
		store->tail = &store->head;
	store->busy = true;
	store->work.data = store;
	int rc = uv_queue_work(store->loop, &store->work, work_write, work_done);
	assert(rc == 0);
}

static void on_turn_end(uv_idle_t *idle)
{
	uv_idle_stop(idle);
	work_start(idle->data);
}

static void push(struct store *store, struct store_op *op)
{
	assert(!store->closing);
	*store->tail = op;
	store->tail = &op->next;
	if (!store->busy)
		uv_idle_start(&store->turn_end, on_turn_end);
}

void store_write(struct store *store, const struct clog_disk_batch *batch)
{
	push(store, store_op_from_batch(batch));
}

void store_snapshot(struct store *store, uint64_t index, uint64_t epoch, const void *data, size_t len, const uint32_t *voters,
		    size_t n_voters)
{
	push(store, store_op_from_snapshot(index, epoch, data, len, voters, n_voters));
}

void store_remember(struct store *store)
{
	push(store, store_op_remember());
}

void store_close(struct store *store)
{
	store->closing = true;
	uv_idle_stop(&store->turn_end);
	work_start(store);
}
