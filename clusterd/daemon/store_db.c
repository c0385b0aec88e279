#include "clusterd/daemon/store_db.h"

#include <errno.h>
#include <inttypes.h>
#include <isa-l/crc.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/limits.h"

enum statement {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_META_SET,
	SQL_META_GET,
	SQL_TRUNCATE,
	SQL_DELETE_ALL,
	SQL_DELETE_BELOW,
	SQL_INSERT,
	SQL_SNAPSHOT_SET,
	SQL_SNAPSHOT_GET,
	SQL_SNAPSHOT_INDEX,
	SQL_ENTRIES,
	SQL_COUNT
};

static const char *const statement_text[SQL_COUNT] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_META_SET] = "INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2",
	[SQL_META_GET] = "SELECT value FROM meta WHERE key = ?1",
	[SQL_TRUNCATE] = "DELETE FROM entries WHERE idx >= ?1",
	[SQL_DELETE_ALL] = "DELETE FROM entries",
	[SQL_DELETE_BELOW] = "DELETE FROM entries WHERE idx < ?1",
	[SQL_INSERT] = "INSERT INTO entries(idx, epoch, crc, command) VALUES(?1, ?2, ?3, ?4)",
	[SQL_SNAPSHOT_SET] = "INSERT OR REPLACE INTO snapshot(one, idx, epoch, crc, data, voters) VALUES(1, ?1, ?2, ?3, ?4, ?5)",
	[SQL_SNAPSHOT_GET] = "SELECT idx, epoch, crc, data, voters FROM snapshot WHERE one = 1",
	[SQL_SNAPSHOT_INDEX] = "SELECT idx FROM snapshot WHERE one = 1",
	[SQL_ENTRIES] = "SELECT idx, epoch, crc, command FROM entries ORDER BY idx",
};

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS entries(idx INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, crc INTEGER NOT NULL,"
	" command BLOB NOT NULL);"
	"CREATE TABLE IF NOT EXISTS snapshot(one INTEGER PRIMARY KEY CHECK (one = 1), idx INTEGER NOT NULL,"
	" epoch INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL, voters BLOB NOT NULL);";

struct store_db {
	sqlite3 *sql;
	char *path;
	sqlite3_stmt *statements[SQL_COUNT];
};

static uint32_t checksum(uint64_t index, uint64_t epoch, const void *data, size_t len)
{
	uint64_t head[2] = {index, epoch};
	uint32_t crc = crc32_iscsi((unsigned char *)head, sizeof(head), 0xffffffff);

	/* Commands are far below 2 GiB (LIMIT_CLOG_COMMAND_BYTES); so are snapshots. */
	return len ? crc32_iscsi((unsigned char *)data, (int)len, crc) : crc;
}

static int fail(struct store_db *db, int sql_rc, const char *doing, struct err *err)
{
	int errnum;

	switch (sql_rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		errnum = EBADMSG;
		break;
	case SQLITE_FULL:
		errnum = ENOSPC;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		errnum = EBUSY;
		break;
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_PERM:
		errnum = EACCES;
		break;
	default:
		errnum = EIO;
	}
	return err_set(err, errnum, "%s: %s: %s", db->path, doing, db->sql ? sqlite3_errmsg(db->sql) : sqlite3_errstr(sql_rc));
}

static int corrupt(struct store_db *db, struct err *err, const char *what)
{
	return err_set(err, EBADMSG, "%s is corrupt: %s", db->path, what);
}

/* A prepared statement, ready for its values; prepared at its first use. NULL: *ret_rc says why. */
static sqlite3_stmt *statement(struct store_db *db, enum statement which, int *ret_rc)
{
	sqlite3_stmt **s = &db->statements[which];

	*ret_rc = SQLITE_OK;
	if (!*s)
		*ret_rc = sqlite3_prepare_v3(db->sql, statement_text[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
	return *ret_rc == SQLITE_OK ? *s : NULL;
}

/* Runs a statement that gives no rows, with up to two numbers. */
static int run_numbers(struct store_db *db, enum statement which, size_t n, uint64_t a, uint64_t b)
{
	int rc;
	sqlite3_stmt *s = statement(db, which, &rc);

	if (!s)
		return rc;
	if (n > 0)
		sqlite3_bind_int64(s, 1, (sqlite3_int64)a);
	if (n > 1)
		sqlite3_bind_int64(s, 2, (sqlite3_int64)b);
	rc = sqlite3_step(s);
	sqlite3_reset(s);
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int meta_set(struct store_db *db, const char *key, uint64_t value)
{
	int rc;
	sqlite3_stmt *s = statement(db, SQL_META_SET, &rc);

	if (!s)
		return rc;
	sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)value);
	rc = sqlite3_step(s);
	sqlite3_reset(s);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* 0 where the key is not there. */
static int meta_get(struct store_db *db, const char *key, uint64_t *ret)
{
	int rc;
	sqlite3_stmt *s = statement(db, SQL_META_GET, &rc);

	if (!s)
		return rc;
	sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
	rc = sqlite3_step(s);
	if (rc == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(s, 0);
	else if (rc == SQLITE_DONE)
		*ret = 0;
	sqlite3_reset(s);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int check_whole(struct store_db *db, struct err *err)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db->sql, "PRAGMA quick_check(1)", -1, &s, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(s);
	if (rc != SQLITE_ROW) {
		rc = fail(db, rc, "checking it", err);
	} else {
		const char *text = (const char *)sqlite3_column_text(s, 0);

		rc = text && !strcmp(text, "ok") ? 0 : corrupt(db, err, text ? text : "no answer of its check");
	}
	sqlite3_finalize(s);
	return rc;
}

static int open_settled(struct store_db *db, struct err *err)
{
	uint64_t format = 0;
	int rc;

	/* EXCLUSIVE before WAL: no shared-memory file, and a second clusterd is refused instead of mixing in. */
	rc = sqlite3_exec(db->sql, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;", NULL, NULL,
			  NULL);
	if (rc != SQLITE_OK)
		return fail(db, rc, "opening", err);
	rc = check_whole(db, err);
	if (rc < 0)
		return rc;
	rc = sqlite3_exec(db->sql, schema, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = meta_get(db, "format", &format);
	if (rc == SQLITE_OK && !format)
		rc = meta_set(db, "format", STORE_DB_FORMAT);
	if (rc != SQLITE_OK)
		return fail(db, rc, "preparing its tables", err);
	if (format > STORE_DB_FORMAT)
		return err_set(err, ENOTSUP, "%s has format %" PRIu64 ", this clusterd knows up to %d: install the newer clusterd again",
			       db->path, format, STORE_DB_FORMAT);
	return 0;
}

int store_db_open(const char *path, struct store_db **ret, struct err *err)
{
	struct store_db *db = mem_alloc(sizeof(*db));
	int rc;

	db->path = str_dup(path);
	/* Without locks of its own: nobody uses it from two threads at once. */
	rc = sqlite3_open_v2(path, &db->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc != SQLITE_OK)
		rc = fail(db, rc, "opening", err);
	else
		rc = open_settled(db, err);
	if (rc < 0) {
		store_db_close(db);
		return rc;
	}
	*ret = db;
	return 0;
}

void store_db_close(struct store_db *db)
{
	if (!db)
		return;
	for (size_t i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->sql);
	free(db->path);
	free(db);
}

static int load_snapshot(struct store_db *db, struct clog_disk_state *to, struct buf *data, struct err *err)
{
	int rc, result = 0;
	sqlite3_stmt *s = statement(db, SQL_SNAPSHOT_GET, &rc);
	const void *blob;
	size_t len;

	if (!s)
		return fail(db, rc, "reading the snapshot", err);
	rc = sqlite3_step(s);
	if (rc == SQLITE_ROW) {
		to->snapshot_index = (uint64_t)sqlite3_column_int64(s, 0);
		to->snapshot_epoch = (uint64_t)sqlite3_column_int64(s, 1);
		blob = sqlite3_column_blob(s, 3);
		len = (size_t)sqlite3_column_bytes(s, 3);
		if (checksum(to->snapshot_index, to->snapshot_epoch, blob, len) != (uint32_t)sqlite3_column_int64(s, 2))
			result = corrupt(db, err, "the snapshot's checksum is wrong");
		buf_append(data, blob, len);
		len = (size_t)sqlite3_column_bytes(s, 4);
		to->n_voters = len / sizeof(uint32_t);
		if (to->n_voters)
			to->voters = mem_dup(sqlite3_column_blob(s, 4), to->n_voters * sizeof(uint32_t));
		to->voters_index = to->snapshot_index;
	} else if (rc != SQLITE_DONE) {
		result = fail(db, rc, "reading the snapshot", err);
	}
	sqlite3_reset(s);
	return result;
}

static int take_row(struct store_db *db, sqlite3_stmt *s, struct clog_disk_state *to, size_t *cap, struct err *err)
{
	uint64_t index = (uint64_t)sqlite3_column_int64(s, 0), epoch = (uint64_t)sqlite3_column_int64(s, 1);
	const void *blob = sqlite3_column_blob(s, 3);
	size_t len = (size_t)sqlite3_column_bytes(s, 3);
	Gantry__LogEntry *e;

	if (checksum(index, epoch, blob, len) != (uint32_t)sqlite3_column_int64(s, 2))
		return corrupt(db, err, "the checksum of a log entry is wrong");
	if (to->n_entries && to->entries[to->n_entries - 1]->index + 1 != index)
		return corrupt(db, err, "log entries are missing in the middle");
	if (to->n_entries && to->entries[to->n_entries - 1]->epoch > epoch)
		return corrupt(db, err, "the epochs of its log entries go back");
	if (to->n_entries == *cap) {
		*cap = *cap ? 2 * *cap : 256;
		to->entries = mem_realloc(to->entries, *cap * sizeof(*to->entries));
	}
	e = mem_alloc(sizeof(*e));
	gantry__log_entry__init(e);
	e->index = index;
	e->epoch = epoch;
	e->command.len = len;
	e->command.data = len ? mem_dup(blob, len) : NULL;
	to->entries[to->n_entries++] = e;
	return 0;
}

static int load_entries(struct store_db *db, struct clog_disk_state *to, struct err *err)
{
	size_t cap = 0;
	int rc, result = 0;
	sqlite3_stmt *s = statement(db, SQL_ENTRIES, &rc);

	if (!s)
		return fail(db, rc, "reading the log", err);
	while (result == 0 && (rc = sqlite3_step(s)) == SQLITE_ROW)
		result = take_row(db, s, to, &cap, err);
	if (result == 0 && rc != SQLITE_DONE)
		result = fail(db, rc, "reading the log", err);
	sqlite3_reset(s);
	return result;
}

/* What the rows say together. */
static int check_state(struct store_db *db, const struct clog_disk_state *state, struct err *err)
{
	uint64_t first = state->n_entries ? state->entries[0]->index : state->snapshot_index + 1;
	uint64_t last = first + state->n_entries - 1;

	if (first > state->snapshot_index + 1)
		return corrupt(db, err, "log entries are missing behind the snapshot");
	if (last < state->snapshot_index)
		return corrupt(db, err, "the log ends before the snapshot");
	if (state->commit_index > last)
		return corrupt(db, err, "entries that were committed are missing");
	if (state->n_entries && state->entries[state->n_entries - 1]->epoch > state->promised_epoch)
		return corrupt(db, err, "the log is of a later epoch than was promised");
	return 0;
}

int store_db_load(struct store_db *db, struct clog_disk_state *ret, struct buf *ret_snapshot, struct err *err)
{
	struct clog_disk_state state = {0};
	struct buf snapshot = {0};
	int rc = meta_get(db, "promised_epoch", &state.promised_epoch);

	if (rc == SQLITE_OK)
		rc = meta_get(db, "commit_index", &state.commit_index);
	rc = rc == SQLITE_OK ? 0 : fail(db, rc, "reading", err);
	if (rc == 0)
		rc = load_snapshot(db, &state, &snapshot, err);
	if (rc == 0)
		rc = load_entries(db, &state, err);
	if (rc == 0)
		rc = check_state(db, &state, err);
	if (rc < 0) {
		store_db_state_free(&state);
		buf_free(&snapshot);
		return rc;
	}
	*ret = state;
	buf_append(ret_snapshot, snapshot.data, snapshot.len);
	buf_free(&snapshot);
	return 0;
}

int store_db_node_id(struct store_db *db, uint32_t *ret, struct err *err)
{
	uint64_t value;
	int rc = meta_get(db, "node_id", &value);

	if (rc != SQLITE_OK)
		return fail(db, rc, "reading the node id", err);
	*ret = (uint32_t)value;
	return 0;
}

int store_db_set_node_id(struct store_db *db, uint32_t node_id, struct err *err)
{
	int rc = meta_set(db, "node_id", node_id);

	return rc == SQLITE_OK ? 0 : fail(db, rc, "writing the node id", err);
}

int store_db_is_forgetful(struct store_db *db, bool *ret, struct err *err)
{
	uint64_t value;
	int rc = meta_get(db, "forgetful", &value);

	if (rc != SQLITE_OK)
		return fail(db, rc, "reading", err);
	*ret = value != 0;
	return 0;
}

int store_db_set_forgetful(struct store_db *db, struct err *err)
{
	int rc = meta_set(db, "forgetful", 1);

	return rc == SQLITE_OK ? 0 : fail(db, rc, "writing", err);
}

static int insert_entry(struct store_db *db, const struct store_entry *e)
{
	int rc;
	sqlite3_stmt *s = statement(db, SQL_INSERT, &rc);

	if (!s)
		return rc;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)e->index);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)e->epoch);
	sqlite3_bind_int64(s, 3, checksum(e->index, e->epoch, e->command, e->len));
	sqlite3_bind_blob(s, 4, e->command ? (const void *)e->command : "", (int)e->len, SQLITE_STATIC);
	rc = sqlite3_step(s);
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int write_snapshot(struct store_db *db, const struct store_op *op)
{
	const void *data = op->snapshot.data ? (const void *)op->snapshot.data : "";
	const void *voters = op->voters ? (const void *)op->voters : "";
	int rc;
	sqlite3_stmt *s = statement(db, SQL_SNAPSHOT_SET, &rc);

	if (!s)
		return rc;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)op->snapshot_index);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)op->snapshot_epoch);
	sqlite3_bind_int64(s, 3, checksum(op->snapshot_index, op->snapshot_epoch, data, op->snapshot.len));
	sqlite3_bind_blob(s, 4, data, (int)op->snapshot.len, SQLITE_STATIC);
	sqlite3_bind_blob(s, 5, voters, (int)(op->n_voters * sizeof(uint32_t)), SQLITE_STATIC);
	rc = sqlite3_step(s);
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* The model's own snapshot: entries that clog does not keep either may go. One that a replace overtook is dropped. */
static int write_own_snapshot(struct store_db *db, const struct store_op *op)
{
	uint64_t there = 0;
	int rc;
	sqlite3_stmt *s = statement(db, SQL_SNAPSHOT_INDEX, &rc);

	if (!s)
		return rc;
	rc = sqlite3_step(s);
	if (rc == SQLITE_ROW)
		there = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return rc;
	if (there >= op->snapshot_index)
		return SQLITE_OK;
	rc = write_snapshot(db, op);
	if (rc == SQLITE_OK && op->snapshot_index > LIMIT_CLOG_KEPT_ENTRIES)
		rc = run_numbers(db, SQL_DELETE_BELOW, 1, op->snapshot_index - LIMIT_CLOG_KEPT_ENTRIES + 1, 0);
	return rc;
}

static int write_op(struct store_db *db, const struct store_op *op)
{
	int rc = SQLITE_OK;

	if (op->own_snapshot)
		return write_own_snapshot(db, op);
	if (op->remember)
		return meta_set(db, "forgetful", 0);
	if (op->replace_all)
		rc = run_numbers(db, SQL_DELETE_ALL, 0, 0, 0);
	if (rc == SQLITE_OK && op->truncate_from)
		rc = run_numbers(db, SQL_TRUNCATE, 1, op->truncate_from, 0);
	if (rc == SQLITE_OK && op->has_snapshot)
		rc = write_snapshot(db, op);
	for (size_t i = 0; rc == SQLITE_OK && i < op->n_entries; i++)
		rc = insert_entry(db, &op->entries[i]);
	return rc;
}

/* The numbers that every batch carries: those of the last one stand, so only they are written. */
static int write_numbers(struct store_db *db, const struct store_op *op)
{
	int rc = op ? meta_set(db, "promised_epoch", op->promised_epoch) : SQLITE_OK;

	return op && rc == SQLITE_OK ? meta_set(db, "commit_index", op->commit_index) : rc;
}

int store_db_write(struct store_db *db, const struct store_op *list, struct err *err)
{
	const struct store_op *last_batch = NULL;
	int rc = run_numbers(db, SQL_BEGIN, 0, 0, 0);

	for (; rc == SQLITE_OK && list; list = list->next) {
		rc = write_op(db, list);
		if (!list->own_snapshot && !list->remember)
			last_batch = list;
	}
	if (rc == SQLITE_OK)
		rc = write_numbers(db, last_batch);
	if (rc == SQLITE_OK)
		rc = run_numbers(db, SQL_COMMIT, 0, 0, 0);
	if (rc == SQLITE_OK)
		return 0;
	rc = fail(db, rc, "writing the log", err);
	run_numbers(db, SQL_ROLLBACK, 0, 0, 0);
	return rc;
}

int store_db_set_aside(const char *path, int64_t unix_time, char **ret_path, struct err *err)
{
	static const char *const tails[] = {"", "-wal", "-shm"};
	char *to = str_printf("%s.corrupt-%" PRId64, path, unix_time);

	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		_cleanup_free_ char *from_part = str_printf("%s%s", path, tails[i]);
		_cleanup_free_ char *to_part = str_printf("%s%s", to, tails[i]);

		if (rename(from_part, to_part) < 0 && errno != ENOENT) {
			int rc = err_set(err, errno, "%s: renaming it to %s: %s", from_part, to_part, strerror(errno));

			free(to);
			return rc;
		}
	}
	*ret_path = to;
	return 0;
}
