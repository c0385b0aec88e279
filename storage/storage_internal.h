/* The inside of storage_async.h, shared by storage_async.c (pools and their one queue each) and storage_leases.c. */
#pragma once

#include "lib/limits.h"
#include "storage/pool_fs.h"
#include "storage/storage_async.h"

struct storage_op;
/* In the thread pool. fs is open. Returns 0 or a negative errno with op->err. */
typedef int (*storage_work)(struct pool_fs *fs, struct storage_op *op);
/* On the loop, exactly once; the op is freed after it by the caller of this. */
typedef void (*storage_after)(struct storage_op *op);

/* One piece of blocking work on one pool. Made by storage__op_new(), owned by the queue once it is given to it. */
struct storage_op {
	struct storage_op *next;
	struct storage *storage;
	storage_work work;
	storage_after after;
	void *data, *more;
	char *text;               /* a file or volume name: freed with the op */
	int rc;
	struct err err;
};

struct storage_op *storage__op_new(struct storage *st, storage_work work, storage_after after, void *data);
/* Queues it behind the others of this pool. A failure leaves the op to the caller (storage__op_free). */
int storage__op_queue(struct storage *st, const char *pool, struct storage_op *op, struct err *err);
void storage__op_free(struct storage_op *op);
uv_loop_t *storage__loop(struct storage *st);
const char *storage__host(const struct storage *st);
