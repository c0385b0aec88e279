/* The durable log: every place at which it can crash, a full disk, a corrupt file, group commit. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <uv.h>

#include "clusterd/daemon/store.h"
#include "clusterd/daemon/store_db.h"
#include "tests/unit/faulty_vfs.h"

static char folder[64], path[96];

static int make_folder(void **state)
{
	snprintf(folder, sizeof(folder), "test-store-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/clusterd.db", folder);
	return 0;
}

static void remove_db(void)
{
	static const char *const tails[] = {"", "-wal", "-shm", "-journal"};

	for (size_t i = 0; i < 4; i++) {
		char name[128];

		snprintf(name, sizeof(name), "%s%s", path, tails[i]);
		unlink(name);
	}
}

static int remove_folder(void **state)
{
	remove_db();
	rmdir(folder);
	return 0;
}

static struct store_db *open_db(void)
{
	struct store_db *db = NULL;
	struct err err = {0};
	int rc = store_db_open(path, &db, &err);

	if (rc < 0)
		fail_msg("open: %s", err.text);
	return db;
}

static struct store_op *op_append(uint64_t first, size_t n, uint64_t epoch, size_t bytes)
{
	struct store_op *op = calloc(1, sizeof(*op));

	op->promised_epoch = epoch;
	op->commit_index = first - 1;
	op->n_entries = n;
	op->entries = calloc(n, sizeof(*op->entries));
	for (size_t i = 0; i < n; i++) {
		struct store_entry *e = &op->entries[i];

		e->index = first + i;
		e->epoch = epoch;
		e->len = bytes;
		e->command = bytes ? malloc(bytes) : NULL;
		for (size_t k = 0; k < bytes; k++)
			e->command[k] = (uint8_t)(e->index * 7 + epoch * 31 + k);
	}
	return op;
}

/* ---- the script of the crash test, and what must be there after k of its steps */

#define STEPS 8

static struct store_op *script(size_t step)
{
	static const uint32_t voters[] = {1, 2, 3};
	static const uint8_t state[] = "the state after entry 7";
	struct store_op *op;

	switch (step) {
	case 0: return op_append(1, 3, 1, 100);
	case 1: return op_append(4, 2, 1, 0);
	case 2: return op_append(6, 4, 2, 9000);
	case 3:   /* a tail that lost is cut and replaced */
		op = op_append(8, 2, 3, 50);
		op->truncate_from = 8;
		return op;
	case 4: return store_op_from_snapshot(7, 2, state, sizeof(state), voters, 3);
	case 5: return op_append(10, 30, 3, 700);
	case 6:   /* everything is replaced by the winner's snapshot */
		op = op_append(101, 5, 9, 40);
		op->replace_all = op->has_snapshot = true;
		op->snapshot_index = 100;
		op->snapshot_epoch = 8;
		op->commit_index = 100;
		buf_append(&op->snapshot, "newer", 5);
		op->voters = mem_dup(voters, sizeof(voters));
		op->n_voters = 3;
		return op;
	default: return op_append(106, 1, 9, 20);
	}
}

struct expected { uint64_t first, last, last_epoch, promised, snapshot_index; size_t snapshot_len; };
static const struct expected after[STEPS + 1] = {
	{1, 0, 0, 0, 0, 0}, {1, 3, 1, 1, 0, 0}, {1, 5, 1, 1, 0, 0}, {1, 9, 2, 2, 0, 0}, {1, 9, 3, 3, 0, 0},
	{1, 9, 3, 3, 7, 24}, {1, 39, 3, 3, 7, 24}, {101, 105, 9, 9, 100, 5}, {101, 106, 9, 9, 100, 5},
};

static bool is_state(const struct clog_disk_state *s, const struct buf *snapshot, const struct expected *want)
{
	uint64_t first = s->n_entries ? s->entries[0]->index : 1;

	if (first != want->first || first + s->n_entries - 1 != want->last || s->promised_epoch != want->promised ||
	    s->snapshot_index != want->snapshot_index || snapshot->len != want->snapshot_len)
		return false;
	return !s->n_entries || s->entries[s->n_entries - 1]->epoch == want->last_epoch;
}

static void check_contents(const struct clog_disk_state *s)
{
	for (size_t i = 0; i < s->n_entries; i++)
		for (size_t k = 0; k < s->entries[i]->command.len; k++)
			assert_int_equal(s->entries[i]->command.data[k],
					 (uint8_t)(s->entries[i]->index * 7 + s->entries[i]->epoch * 31 + k));
}

/* ---- the power goes at the nth write, sync or truncate, in the middle of it: the process ends there */

static void exit_dead(void)
{
	_exit(42);
}

static void install_crashes(long at)
{
	faulty.on_death = exit_dead;
	faulty_vfs_install(at);
}

/* Runs the script in a child that dies at its nth write. Returns the steps it was told are durable; -1: it got through. */
static int run_until(long n, bool kill_it, useconds_t after_us)
{
	int pipe_fds[2], status, done = 0;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(pipe_fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct store_db *db;
		struct err err = {0};

		if (n)
			install_crashes(n);
		db = open_db();
		for (size_t i = 0; i < STEPS; i++) {
			struct store_op *op = script(i);

			if (store_db_write(db, op, &err) < 0 || write(pipe_fds[1], "x", 1) != 1)
				_exit(1);
			store_op_free(op);
		}
		if (kill_it)
			pause();
		faulty.countdown = 0;
		_exit(0);
	}
	close(pipe_fds[1]);
	if (kill_it) {
		usleep(after_us);
		kill(pid, SIGKILL);
	}
	while (read(pipe_fds[0], &byte, 1) == 1)
		done++;
	close(pipe_fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return -1;
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 42);
	return done;
}

static void check_after_crash(int done)
{
	struct store_db *db = open_db();
	struct clog_disk_state state = {0};
	struct buf snapshot = {0};
	struct err err = {0};
	int rc = store_db_load(db, &state, &snapshot, &err);

	if (rc < 0)
		fail_msg("after %d steps: %s", done, err.text);
	/* All that was acknowledged is there; the step that was under way is there wholly or not at all. */
	if (!is_state(&state, &snapshot, &after[done]) && !(done < STEPS && is_state(&state, &snapshot, &after[done + 1])))
		fail_msg("after %d steps the log has %zu entries, promised %lu, snapshot %lu", done, state.n_entries,
			 (unsigned long)state.promised_epoch, (unsigned long)state.snapshot_index);
	check_contents(&state);
	store_db_state_free(&state);
	buf_free(&snapshot);
	store_db_close(db);
}

static void test_crash_at_every_write(void **state)
{
	int done, seen_steps = 0;
	long n = 1;

	for (; (done = run_until(n, false, 0)) >= 0; n++) {
		check_after_crash(done);
		if (done > seen_steps)
			seen_steps = done;
		remove_db();
	}
	check_after_crash(STEPS);
	/* It did crash in every step, not only while opening. */
	assert_int_equal(seen_steps, STEPS - 1);
	assert_true(n > 3 * STEPS);
}

static void test_killed_at_any_moment(void **state)
{
	for (int i = 0; i < 40; i++) {
		int done = run_until(0, true, (useconds_t)(i * 700));

		check_after_crash(done);
		remove_db();
	}
}

/* Killing a process does not empty the page cache: that each step reaches the disk is seen by its sync. */
static void test_every_step_is_synced(void **state)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct store_db *db;
		struct err err = {0};

		install_crashes(-1);
		db = open_db();
		for (size_t i = 0; i < STEPS; i++) {
			struct store_op *op = script(i);
			long before = faulty.n_syncs;

			if (store_db_write(db, op, &err) < 0 || faulty.n_syncs == before)
				_exit(1);
			store_op_free(op);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* ---- corrupt files */

static void fill_and_close(void)
{
	struct store_db *db = open_db();
	struct err err = {0};

	for (size_t i = 0; i < 3; i++) {
		struct store_op *op = script(i);

		assert_int_equal(store_db_write(db, op, &err), 0);
		store_op_free(op);
	}
	store_db_close(db);
}

static int open_and_load(struct err *err)
{
	struct store_db *db = NULL;
	struct clog_disk_state state = {0};
	struct buf snapshot = {0};
	int rc = store_db_open(path, &db, err);

	if (rc == 0)
		rc = store_db_load(db, &state, &snapshot, err);
	store_db_close(db);
	store_db_state_free(&state);
	buf_free(&snapshot);
	return rc;
}

static void overwrite(off_t at, const void *data, size_t len)
{
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, len, at), (ssize_t)len);
	close(fd);
}

/* One bit in the middle of a command: SQLite does not see it, the checksum does. */
static void test_flipped_bit_is_found(void **state)
{
	struct err err = {0};
	uint8_t bytes[64];
	struct stat st;
	bool found = false;
	int fd;

	fill_and_close();
	assert_int_equal(stat(path, &st), 0);
	fd = open(path, O_RDWR);
	/* A run that counts up by one is the inside of a command (op_append). */
	for (off_t at = 0; at + 64 <= st.st_size && !found; at += 32) {
		bool run = true;

		assert_int_equal(pread(fd, bytes, 64, at), 64);
		for (size_t i = 1; i < 64; i++)
			run = run && bytes[i] == (uint8_t)(bytes[i - 1] + 1);
		if (run) {
			bytes[20] ^= 4;
			assert_int_equal(pwrite(fd, bytes, 64, at), 64);
			found = true;
		}
	}
	close(fd);
	assert_true(found);
	assert_int_equal(open_and_load(&err), -EBADMSG);
	assert_non_null(strstr(err.text, "checksum"));
}

static void test_garbage_is_found_and_set_aside(void **state)
{
	struct err err = {0};
	char *aside = NULL;
	char garbage[200];

	fill_and_close();
	memset(garbage, 'z', sizeof(garbage));
	overwrite(0, garbage, sizeof(garbage));
	assert_int_equal(open_and_load(&err), -EBADMSG);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(store_db_set_aside(path, 1234567, &aside, &err), 0);
	assert_int_equal(access(aside, F_OK), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_non_null(strstr(aside, ".corrupt-1234567"));
	/* Begun anew. */
	assert_int_equal(open_and_load(&err), 0);
	unlink(aside);
	free(aside);
}

static void test_missing_entries_are_found(void **state)
{
	struct err err = {0};
	sqlite3 *sql;

	fill_and_close();
	assert_int_equal(sqlite3_open(path, &sql), SQLITE_OK);
	assert_int_equal(sqlite3_exec(sql, "DELETE FROM entries WHERE idx = 4", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(sql);
	assert_int_equal(open_and_load(&err), -EBADMSG);
	assert_non_null(strstr(err.text, "missing"));
}

static void test_second_process_is_refused(void **state)
{
	struct store_db *db = open_db();
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct err err = {0};

		_exit(open_and_load(&err) == -EBUSY ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	store_db_close(db);
}

static void test_newer_format_is_refused(void **state)
{
	struct err err = {0};
	sqlite3 *sql;

	fill_and_close();
	assert_int_equal(sqlite3_open(path, &sql), SQLITE_OK);
	assert_int_equal(sqlite3_exec(sql, "UPDATE meta SET value = 99 WHERE key = 'format'", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(sql);
	assert_int_equal(open_and_load(&err), -ENOTSUP);
}

static void test_node_id_is_kept(void **state)
{
	struct store_db *db = open_db();
	struct err err = {0};
	uint32_t id = 77;

	assert_int_equal(store_db_node_id(db, &id, &err), 0);
	assert_int_equal(id, 0);
	assert_int_equal(store_db_set_node_id(db, 3, &err), 0);
	store_db_close(db);
	db = open_db();
	assert_int_equal(store_db_node_id(db, &id, &err), 0);
	assert_int_equal(id, 3);
	store_db_close(db);
}

/* ---- the queue */

struct watcher { uint64_t next_serial, failed_from; int n_ok, n_failed, rc; bool closed; uint64_t snapshot; };

static void on_batch(void *data, uint64_t serial, int rc, const struct err *err)
{
	struct watcher *w = data;

	assert_int_equal(serial, ++w->next_serial);
	if (rc < 0 && !w->failed_from)
		w->failed_from = serial;
	/* After a failure nothing succeeds any more. */
	assert_true(rc < 0 || !w->failed_from);
	assert_true(rc == 0 || err->text[0]);
	*(rc < 0 ? &w->n_failed : &w->n_ok) += 1;
	w->rc = rc;
}
static void on_snapshot(void *data, uint64_t index, int rc, const struct err *err)
{
	assert_int_equal(rc, 0);
	((struct watcher *)data)->snapshot = index;
}
static void on_closed(void *data)
{
	((struct watcher *)data)->closed = true;
}

static void write_batch(struct store *store, uint64_t serial, uint64_t index, size_t bytes)
{
	struct clog_disk_batch batch = {.serial = serial, .promised_epoch = 1};
	Gantry__LogEntry e = GANTRY__LOG_ENTRY__INIT, *list[] = {&e};

	e.index = index;
	e.epoch = 1;
	e.command.len = bytes;
	e.command.data = calloc(1, bytes ? bytes : 1);
	batch.entries = list;
	batch.n_entries = 1;
	store_write(store, &batch);
	/* The batch belongs to the log: it may go at once. */
	memset(e.command.data, 0xee, bytes);
	free(e.command.data);
}

static const struct store_callbacks callbacks = {.on_batch = on_batch, .on_snapshot = on_snapshot, .on_closed = on_closed};

static void test_queue_in_order_and_merged(void **state)
{
	struct watcher w = {0};
	struct err err = {0};
	uint64_t begin;
	uv_loop_t loop;
	struct store *store;

	uv_loop_init(&loop);
	setenv("GANTRY_TEST_FSYNC_DELAY_MS", "50", 1);
	store = store_new(&loop, open_db(), &callbacks, &w);
	unsetenv("GANTRY_TEST_FSYNC_DELAY_MS");
	begin = uv_hrtime();
	for (uint64_t i = 1; i <= 100; i++)
		write_batch(store, i, i, 10);
	store_snapshot(store, 60, 1, "state", 5, (uint32_t[]){1}, 1);
	while (!w.snapshot)
		uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(w.n_ok, 100);
	assert_int_equal(w.snapshot, 60);
	/* One transaction for the first, one for all that waited meanwhile: not a hundred. */
	assert_true((uv_hrtime() - begin) / 1000000 < 1000);
	store_close(store);
	while (!w.closed)
		uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(open_and_load(&err), 0);
}

static void test_full_disk(void **state)
{
	struct rlimit old, small;
	struct watcher w = {0};
	struct clog_disk_state loaded = {0};
	struct buf snapshot = {0};
	struct err err = {0};
	uv_loop_t loop;
	struct store *store;
	struct store_db *db;
	uint64_t serial = 0;

	signal(SIGXFSZ, SIG_IGN);
	uv_loop_init(&loop);
	store = store_new(&loop, open_db(), &callbacks, &w);
	getrlimit(RLIMIT_FSIZE, &old);
	small = (struct rlimit){.rlim_cur = 300 << 10, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_FSIZE, &small);
	while (!w.failed_from && serial < 1000) {
		write_batch(store, serial + 1, serial + 1, 20000);
		serial++;
		while (w.next_serial < serial)
			uv_run(&loop, UV_RUN_ONCE);
	}
	setrlimit(RLIMIT_FSIZE, &old);
	assert_true(w.failed_from > 2);
	assert_true(w.rc == -ENOSPC || w.rc == -EIO);
	/* There is room again, but what a failed write left is unknown: still refused. */
	write_batch(store, serial + 1, serial + 1, 10);
	while (w.next_serial < serial + 1)
		uv_run(&loop, UV_RUN_ONCE);
	store_close(store);
	while (!w.closed)
		uv_run(&loop, UV_RUN_ONCE);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	/* All that was acknowledged is there. */
	db = open_db();
	assert_int_equal(store_db_load(db, &loaded, &snapshot, &err), 0);
	assert_int_equal(loaded.n_entries, w.failed_from - 1);
	store_db_state_free(&loaded);
	store_db_close(db);
	buf_free(&snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
		T(test_crash_at_every_write), T(test_killed_at_any_moment), T(test_every_step_is_synced), T(test_flipped_bit_is_found),
		T(test_garbage_is_found_and_set_aside), T(test_missing_entries_are_found), T(test_second_process_is_refused),
		T(test_newer_format_is_refused), T(test_node_id_is_kept), T(test_queue_in_order_and_merged), T(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
