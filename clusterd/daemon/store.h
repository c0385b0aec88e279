/* The durable log behind the loop: batches of clog are written in order in libuv's thread pool, one worker at a
 * time; those of one turn of the loop, and those that wait meanwhile, are one transaction (group commit). Each is answered once, in order. After
 * the first failure nothing is written any more (what a failed fsync left is unknown) and all is answered with it.
 * Owner: the caller; store_close() ends it.
 * Test hook: GANTRY_TEST_FSYNC_DELAY_MS in the environment makes every transaction take so much longer. */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "clusterd/core/clog.h"
#include "clusterd/daemon/store_db.h"
#include "lib/err.h"

struct store;

struct store_callbacks {
	void (*on_batch)(void *data, uint64_t serial, int rc, const struct err *err);
	/* A snapshot given by store_snapshot() is durable (or not). */
	void (*on_snapshot)(void *data, uint64_t index, int rc, const struct err *err);
	void (*on_closed)(void *data);
};

/* Takes db over. */
struct store *store_new(uv_loop_t *loop, struct store_db *db, const struct store_callbacks *callbacks, void *data);
/* Copies the batch. */
void store_write(struct store *store, const struct clog_disk_batch *batch);
void store_snapshot(struct store *store, uint64_t index, uint64_t epoch, const void *data, size_t len, const uint32_t *voters,
		    size_t n_voters);
/* The log is whole again (store_op_remember()); not answered. */
void store_remember(struct store *store);
/* Finishes what is queued, closes the file, frees; on_closed is called once, later. No other callback comes. */
void store_close(struct store *store);
