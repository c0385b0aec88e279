/* The inside of storage_async.h, shared by storage_async.c (pools, and one queue each), storage_leases.c and
 * storage_volumes.c. */
#pragma once

#include "lib/limits.h"
#include "storage/pool_fs.h"
#include "storage/storage_async.h"

struct pool_handle;
struct storage_op;
/* In the thread pool. fs is open. Returns 0 or a negative errno with op->err. */
typedef int (*storage_work)(struct pool_fs *fs, struct storage_op *op);
/* On the loop, exactly once; the queue frees the op after it. */
typedef void (*storage_after)(struct storage_op *op);

/* One piece of blocking work on one pool. Made by storage__op_new(), owned by the queue once it is given to it. */
struct storage_op {
	struct storage_op *next;
	storage_work work;
	storage_after after;
	void *data;
	char *text;               /* a file's name: freed with the op */
	int rc;
	struct err err;
};

struct storage_op *storage__op_new(storage_work work, storage_after after, void *data);
/* Queues it behind the others of this pool; never calls back before it returns. A failure leaves the op to the caller
 * (storage__op_free()). After a time-out the operations that waited meanwhile get the same answer: each would wait as long. */
int storage__op_queue(struct pool_handle *pool, struct storage_op *op, struct err *err);
void storage__op_free(struct storage_op *op);

/* A pool that stays usable until storage__pool_unref(), even if the goals no longer have it. -ENOENT names it. */
int storage__pool_ref(struct storage *st, const char *name, struct pool_handle **ret, struct err *err);
struct pool_handle *storage__pool_unref(struct pool_handle *pool);   /* NULL */
uv_loop_t *storage__loop(struct storage *st);
const char *storage__host(const struct storage *st);
