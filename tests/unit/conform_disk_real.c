/* The shipped store: SQLite in a folder of its own, on a loop of its own. Death is a loss of power at one of the next operations of
 * its files (faulty_vfs.h), with some of what was not synced undone. */
#include "tests/unit/conform_disk.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "clusterd/daemon/store.h"
#include "lib/limits.h"
#include "tests/unit/faulty_vfs.h"
#include "tests/unit/temp_folder.h"

#define LAST_OPERATIONS 12 /* of the files, among which the power goes: a transaction has about five */

struct real_disk {
	char folder[64], path[96];
	uv_loop_t loop;
	struct store_db *db;       /* the store's */
	struct store *store;
	size_t waiting;            /* for an answer */
	bool closed;
	disk_side_answer answer;
	void *data;
	unsigned rng;
};

static struct real_disk *drawing;

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&drawing->rng) % below;
}

static void on_batch(void *data, uint64_t serial, int rc, const struct err *err)
{
	struct real_disk *d = data;

	d->waiting--;
	d->answer(d->data, false, serial, rc);
}

static void on_snapshot(void *data, uint64_t index, int rc, const struct err *err)
{
	struct real_disk *d = data;

	d->waiting--;
	d->answer(d->data, true, index, rc);
}

static void on_closed(void *data)
{
	((struct real_disk *)data)->closed = true;
}

static void *real_make(uint64_t seed, disk_side_answer answer, void *data)
{
	struct real_disk *d = mem_alloc(sizeof(*d));

	d->answer = answer;
	d->data = data;
	d->rng = (unsigned)seed;
	temp_folder_make(d->folder, sizeof(d->folder));
	snprintf(d->path, sizeof(d->path), "%s/clusterd.db", d->folder);
	uv_loop_init(&d->loop);
	faulty_vfs_install(0);
	faulty.keeps_undo = true;
	faulty.draw = draw;
	drawing = d;
	return d;
}

static int real_begin(void *disk, struct clog_disk_state *ret, struct buf *ret_snapshot, bool *ret_forgetful)
{
	static const struct store_callbacks callbacks = {.on_batch = on_batch, .on_snapshot = on_snapshot, .on_closed = on_closed};
	struct real_disk *d = disk;
	struct store_db *db = NULL;
	struct err err = {0};
	int rc = store_db_open(d->path, &db, &err);

	if (rc == 0)
		rc = store_db_is_forgetful(db, ret_forgetful, &err);
	if (rc == 0)
		rc = store_db_load(db, ret, ret_snapshot, &err);
	if (rc < 0) {
		store_db_close(db);
		return rc;
	}
	d->db = db;
	d->store = store_new(&d->loop, db, &callbacks, d);
	d->waiting = 0;
	return 0;
}

static void end_process(struct real_disk *d)
{
	if (!d->store)
		return;
	d->closed = false;
	store_close(d->store);
	d->store = NULL;
	while (!d->closed)
		uv_run(&d->loop, UV_RUN_ONCE);
	uv_run(&d->loop, UV_RUN_DEFAULT);
}

static void real_die(void *disk)
{
	struct real_disk *d = disk;

	/* The worker may be in the middle of its transaction just now. */
	faulty.countdown = 1 + (long)draw(LAST_OPERATIONS);
	end_process(d);
	faulty.countdown = 0;
	faulty.dead = false;
}

static void real_free(void *disk)
{
	struct real_disk *d = disk;

	end_process(d);
	uv_loop_close(&d->loop);
	temp_folder_remove(d->folder);
	free(d);
}

static void real_write(void *disk, const struct clog_disk_batch *b)
{
	struct real_disk *d = disk;

	d->waiting++;
	store_write(d->store, b);
}

static void real_snapshot(void *disk, uint64_t index, uint64_t epoch, const void *data, size_t len, const uint32_t *voters, size_t n_voters)
{
	struct real_disk *d = disk;

	d->waiting++;
	store_snapshot(d->store, index, epoch, data, len, voters, n_voters);
}

static void real_remember(void *disk)
{
	store_remember(((struct real_disk *)disk)->store);
}

static void real_mark_forgetful(void *disk)
{
	struct err err = {0};
	int rc = store_db_set_forgetful(((struct real_disk *)disk)->db, &err);

	assert(rc == 0);
}

static void real_go_on(void *disk, bool until_quiet)
{
	struct real_disk *d = disk;

	if (!until_quiet) {
		uv_run(&d->loop, d->waiting && draw(2) ? UV_RUN_ONCE : UV_RUN_NOWAIT);
		return;
	}
	while (uv_loop_alive(&d->loop))
		uv_run(&d->loop, UV_RUN_ONCE);
	assert(d->waiting == 0);
}

static void real_set_full(void *disk, bool full)
{
	faulty.full = full;
}

const struct disk_side disk_side_real = {
	.name = "store.c", .kept = LIMIT_CLOG_KEPT_ENTRIES, .seeds = 60, .make = real_make, .free = real_free, .begin = real_begin, .die = real_die,
	.write = real_write, .snapshot = real_snapshot, .remember = real_remember, .mark_forgetful = real_mark_forgetful, .go_on = real_go_on,
	.set_full = real_set_full,
};
