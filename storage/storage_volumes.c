/* Volumes through the daemon's pools: can they be reached, made, deleted; what QEMU calls them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "proto/pb.h"
#include "storage/storage_internal.h"
#include "storage/volume.h"

#define PROBE_BYTES 512

static bool uses_pool(const Gantry__Disk *disk)
{
	return *disk->pool && !disk->empty;
}

static int volume_of(const Gantry__Disk *disk, Gantry__Volume **ret, struct err *err)
{
	Gantry__Volume *v;
	int rc = volume_check_name(disk->volume, err);

	if (rc < 0)
		return err_prefix(err, rc, "disk %s", disk->vdev);
	if (disk->format != GANTRY__DISK_FORMAT__DISK_FORMAT_RAW && disk->format != GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2)
		return err_set(err, ENOTSUP, "disk %s: a volume of a pool is raw or qcow2, nothing else", disk->vdev);
	v = PB_NEW(Gantry__Volume, gantry__volume__init);
	pb_set_string(&v->pool, disk->pool);
	pb_set_string(&v->name, disk->volume);
	v->format = disk->format;
	*ret = v;
	return 0;
}

int storage_disk_uri(struct storage *st, const Gantry__Disk *disk, char **ret, struct err *err)
{
	struct pool_handle *pool = NULL;
	Gantry__Volume *v;
	int rc;

	if (!*disk->pool) {
		*ret = str_dup(disk->path);
		return 0;
	}
	rc = storage__pool_ref(st, disk->pool, &pool, err);
	if (rc < 0)
		return err_prefix(err, rc, "disk %s", disk->vdev);
	rc = volume_of(disk, &v, err);
	if (rc == 0) {
		*ret = volume_uri(storage_find_pool(st, disk->pool), v);
		gantry__volume__free_unpacked(v, NULL);
	}
	storage__pool_unref(pool);
	return rc;
}

/* ---- can they be reached ---- */

struct reach {
	storage_cb cb;
	void *data;
	uv_timer_t timer;
	size_t waiting;
	int rc;
	struct err err;
};

struct reach_one {
	struct reach *all;
	struct pool_handle *pool;
};

static void reach_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void reach_count(struct reach *r, int rc, const struct err *err)
{
	if (rc < 0 && r->rc == 0) {
		r->rc = rc;
		r->err = *err;
	}
	if (--r->waiting > 0)
		return;
	r->cb(r->data, r->rc, r->rc < 0 ? &r->err : NULL);
	uv_close((uv_handle_t *)&r->timer, reach_closed);
}

static int reach_work(struct pool_fs *fs, struct storage_op *op)
{
	struct buf first = {0};
	int rc = pool_fs_peek(fs, op->text, PROBE_BYTES, &first, &op->err);

	buf_free(&first);
	return rc;
}

static void reach_after(struct storage_op *op)
{
	struct reach_one *one = op->data;

	reach_count(one->all, op->rc, &op->err);
	storage__pool_unref(one->pool);
	free(one);
}

static int reach_disk(struct storage *st, struct reach *r, const Gantry__Disk *disk, struct err *err)
{
	struct pool_handle *pool = NULL;
	struct reach_one *one;
	struct storage_op *op;
	Gantry__Volume *v;
	int rc = storage__pool_ref(st, disk->pool, &pool, err);

	if (rc < 0)
		return err_prefix(err, rc, "disk %s", disk->vdev);
	rc = volume_of(disk, &v, err);
	if (rc < 0) {
		storage__pool_unref(pool);
		return rc;
	}
	one = mem_alloc(sizeof(*one));
	*one = (struct reach_one){.all = r, .pool = pool};
	op = storage__op_new(reach_work, reach_after, one);
	op->text = volume_file_name(v);
	gantry__volume__free_unpacked(v, NULL);
	r->waiting++;
	rc = storage__op_queue(pool, op, err);
	if (rc < 0) {
		r->waiting--;
		storage__op_free(op);
		storage__pool_unref(pool);
		free(one);
	}
	return rc;
}

static void reach_begun(uv_timer_t *timer)
{
	reach_count(timer->data, 0, NULL);
}

int storage_check_volumes(struct storage *st, const Gantry__DomainSpec *spec, storage_cb cb, void *data, struct err *err)
{
	struct reach *r = mem_alloc(sizeof(*r));

	r->cb = cb;
	r->data = data;
	/* One count of our own, given up on the next turn of the loop: nothing is called back before we have returned. */
	r->waiting = 1;
	uv_timer_init(storage__loop(st), &r->timer);
	r->timer.data = r;
	for (size_t i = 0; i < spec->n_disks && r->rc == 0; i++)
		if (uses_pool(spec->disks[i]))
			r->rc = reach_disk(st, r, spec->disks[i], &r->err);
	uv_timer_start(&r->timer, reach_begun, 0, 0);
	return 0;
}

/* ---- made and deleted ---- */

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

typedef int (*volume_fn)(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, volume_cb cb, void *data,
			 struct err *err);

static int volume_do(struct storage *st, const Gantry__Volume *volume, volume_fn fn, storage_cb cb, void *data, struct err *err)
{
	struct pool_handle *pool = NULL;
	struct volume_request *r;
	int rc = storage__pool_ref(st, volume->pool, &pool, err);

	if (rc < 0)
		return err_prefix(err, rc, "volume '%s/%s'", volume->pool, volume->name);
	r = mem_alloc(sizeof(*r));
	r->cb = cb;
	r->data = data;
	rc = fn(storage__loop(st), storage_find_pool(st, volume->pool), volume, on_volume, r, err);
	storage__pool_unref(pool);
	if (rc < 0)
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
