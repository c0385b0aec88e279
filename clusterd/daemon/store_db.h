/* The log of this host on its disk: one SQLite file (WAL, synchronous=FULL, locked for this process alone).
 * Blocking: only store.c (in the thread pool) and tests call it. One transaction per store_db_write(): after
 * it returns 0 everything in it survives a power loss, after a failure nothing of it is there.
 *
 *   meta      format, node_id, forgetful, promised_epoch, commit_index
 *   entries   idx, epoch, crc, command: contiguous
 *   snapshot  one row: idx, epoch, crc, data, voters
 *
 * Errors: -EBADMSG the file is corrupt or not ours (text says what was found), -ENOSPC disk full, -EIO other
 * I/O, -EBUSY another process has it, -ENOTSUP a newer format. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "clusterd/core/clog.h"
#include "lib/buf.h"
#include "lib/err.h"

#define STORE_DB_FORMAT 1

struct store_db;

struct store_entry {
	uint64_t index, epoch;
	uint8_t *command;
	size_t len;
};

/* One durable step, owned: a copy of a clog_disk_batch, or (own_snapshot) the model's state after own_index that
 * lets older entries go. */
struct store_op {
	struct store_op *next;
	bool own_snapshot;
	bool remember;           /* the log is whole again: see store_db_is_forgetful() */
	uint64_t serial;
	uint64_t promised_epoch, commit_index;
	uint64_t truncate_from;
	bool replace_all;
	bool has_snapshot;
	uint64_t snapshot_index, snapshot_epoch;
	struct buf snapshot;
	uint32_t *voters;
	size_t n_voters;
	struct store_entry *entries;
	size_t n_entries;
	size_t bytes;            /* about what it costs */
};

struct store_op *store_op_from_batch(const struct clog_disk_batch *batch);
struct store_op *store_op_from_snapshot(uint64_t index, uint64_t epoch, const void *data, size_t len, const uint32_t *voters,
					size_t n_voters);
struct store_op *store_op_remember(void);
struct store_op *store_op_free(struct store_op *op);

/* Opens or makes it and checks it whole. */
int store_db_open(const char *path, struct store_db **ret, struct err *err);
/* ret_snapshot: appended; empty if there is none. The disk state's arrays are the caller's. */
int store_db_load(struct store_db *db, struct clog_disk_state *ret, struct buf *ret_snapshot, struct err *err);
/* The node id that this log was written under; 0: none yet. It is written once. */
int store_db_node_id(struct store_db *db, uint32_t *ret, struct err *err);
int store_db_set_node_id(struct store_db *db, uint32_t node_id, struct err *err);
/* This log was begun anew after a corrupt one was set aside: what this host once acknowledged may be missing in it, so it
 * must not count when a quorum agrees on the newest log, until it has taken one over wholly (store_op_remember()). */
int store_db_is_forgetful(struct store_db *db, bool *ret, struct err *err);
int store_db_set_forgetful(struct store_db *db, struct err *err);
/* All ops of the list in order, in one transaction. */
int store_db_write(struct store_db *db, const struct store_op *list, struct err *err);
void store_db_close(struct store_db *db);
/* Moves a corrupt file (and what belongs to it) out of the way; never deletes. ret_path: owner caller. */
int store_db_set_aside(const char *path, int64_t unix_time, char **ret_path, struct err *err);
/* Frees what store_db_load() filled in and clog_new() has not taken. */
void store_db_state_free(struct clog_disk_state *state);
