#include "storage/volume.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "lib/subprocess.h"
#include "proto/pb.h"
#include "storage/lease.h"
#include "storage/pool_fs.h"

#define QEMU_IMG_TIMEOUT_MS 60000
#define QCOW2_OVERHEAD_BYTES (1u << 20)   /* header and first tables of an empty image */
#define QCOW2_BYTES_A_TABLE_BYTE 8192     /* clusters of 64 KiB, 8 bytes each in the tables that it will need */

int volume_check_name(const char *name, struct err *err)
{
	size_t len = strlen(name);

	if (!len || len > LIMIT_NAME_CHARS || *name == '.')
		return err_set(err, EINVAL, "'%s' is no name for a volume: 1 to %d characters, not beginning with a dot", name, LIMIT_NAME_CHARS);
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return err_set(err, EINVAL, "'%s' is no name for a volume: only letters, digits and . _ - are allowed", name);
	return 0;
}

static const char *format_word(Gantry__DiskFormat format)
{
	return format == GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2 ? "qcow2" : "raw";
}

char *volume_file_name(const Gantry__Volume *volume)
{
	return str_printf("%s.%s", volume->name, format_word(volume->format));
}

char *volume_uri(const Gantry__Pool *pool, const Gantry__Volume *volume)
{
	size_t len = strlen(pool->target);
	const char *slash = len && pool->target[len - 1] == '/' ? "" : "/";

	return str_printf("%s%s%s.%s", pool->target, slash, volume->name, format_word(volume->format));
}

/* What the thread pool does for a task; qemu-img runs between the first and the second or third. */
enum stage {
	STAGE_RESERVE, /* space is checked, the name taken by an empty file: of two at once only one gets it */
	STAGE_MADE,    /* made durable */
	STAGE_CLEAN,   /* qemu-img failed: the name is free again */
	STAGE_DELETE,
};

struct volume_task {
	uv_work_t work;
	uv_loop_t *loop;
	Gantry__Pool *pool;
	Gantry__Volume *volume;
	enum stage stage;
	int rc;
	struct err err;
	volume_cb cb;
	void *data;
};

static void task_finish(struct volume_task *t)
{
	t->cb(t->data, t->rc, t->rc == 0 ? t->volume->size_bytes : 0, t->rc < 0 ? &t->err : NULL);
	gantry__pool__free_unpacked(t->pool, NULL);
	gantry__volume__free_unpacked(t->volume, NULL);
	free(t);
}

/* ---- the blocking parts, in the thread pool ---- */

static int reserve(struct volume_task *t, struct pool_fs *fs, const char *file)
{
	uint64_t total = 0, available = 0, need = t->volume->size_bytes;
	int rc = pool_fs_space(fs, &total, &available, &t->err);

	if (rc < 0)
		return rc;
	/* qcow2 grows as the guest writes. A raw one does so too, but who asks for raw wants to be sure of the room. */
	if (t->volume->format == GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2)
		need = QCOW2_OVERHEAD_BYTES + need / QCOW2_BYTES_A_TABLE_BYTE;
	if (need > available)
		return err_set(&t->err, ENOSPC, "volume '%s/%s' needs %" PRIu64 " MiB, pool '%s' has %" PRIu64 " MiB free", t->pool->name,
			       t->volume->name, need >> 20, t->pool->name, available >> 20);
	rc = pool_fs_create(fs, file, "", 0, &t->err);
	if (rc == -EEXIST)
		return err_set(&t->err, EEXIST, "volume '%s/%s': the file %s is in the pool already; take another name, or remove it there",
			       t->pool->name, t->volume->name, file);
	return rc;
}

static int delete(struct volume_task *t, struct pool_fs *fs, const char *file)
{
	int rc = lease_remove_all(fs, t->volume->name, &t->err);

	if (rc == 0)
		rc = pool_fs_remove(fs, file, &t->err);
	return rc == -ENOENT ? 0 : rc;
}

static int do_stage(struct volume_task *t, struct pool_fs *fs, const char *file)
{
	switch (t->stage) {
	case STAGE_RESERVE:
		return reserve(t, fs, file);
	case STAGE_MADE:
		return pool_fs_sync(fs, file, &t->err);
	case STAGE_DELETE:
		return delete(t, fs, file);
	default:
		/* What is told is why qemu-img failed. */
		pool_fs_remove(fs, file, NULL);
		return t->rc;
	}
}

static void work(uv_work_t *w)
{
	struct volume_task *t = w->data;
	_cleanup_free_ char *file = volume_file_name(t->volume);
	struct pool_fs *fs = NULL;
	struct err *err = t->stage == STAGE_CLEAN ? NULL : &t->err;
	int rc = pool_fs_open(t->pool, &fs, err);

	if (rc < 0) {
		if (t->stage != STAGE_CLEAN)
			t->rc = rc == -ETIMEDOUT ? -EHOSTUNREACH : rc;
		return;
	}
	t->rc = do_stage(t, fs, file);
	pool_fs_close(fs);
}

/* ---- qemu-img ---- */

static void after_work(uv_work_t *w, int status);

static void on_image(void *data, const struct subprocess_result *result)
{
	struct volume_task *t = data;
	const char *said = result->err_out ? result->err_out : "";

	if (result->rc == -ETIMEDOUT)
		err_set(&t->err, ETIMEDOUT, "qemu-img did not end within %d s; does the pool's server answer?", QEMU_IMG_TIMEOUT_MS / 1000);
	else if (result->rc < 0)
		err_set(&t->err, -result->rc, "qemu-img cannot be run: %s", strerror(-result->rc));
	else
		err_set(&t->err, EIO, "%.*s", (int)strcspn(said, "\n"), *said ? said : "qemu-img failed and does not say why");
	t->stage = STAGE_MADE;
	if (result->rc < 0 || result->exit_status != 0) {
		t->stage = STAGE_CLEAN;
		t->rc = err_prefix(&t->err, result->rc < 0 ? result->rc : -EIO, "volume '%s/%s'", t->pool->name, t->volume->name);
	}
	uv_queue_work(t->loop, &t->work, work, after_work);
}

static void run_image(struct volume_task *t)
{
	_cleanup_free_ char *uri = volume_uri(t->pool, t->volume), *size = str_printf("%" PRIu64, t->volume->size_bytes);
	const char *argv[] = {"qemu-img", "create", "-q", "-f", format_word(t->volume->format), uri, size, NULL};
	struct subprocess_options options = {.argv = argv, .timeout_ms = QEMU_IMG_TIMEOUT_MS};

	t->rc = subprocess_run(t->loop, &options, on_image, t, NULL, &t->err);
	if (t->rc == 0)
		return;
	err_prefix(&t->err, t->rc, "volume '%s/%s'", t->pool->name, t->volume->name);
	t->stage = STAGE_CLEAN;
	uv_queue_work(t->loop, &t->work, work, after_work);
}

static void after_work(uv_work_t *w, int status)
{
	struct volume_task *t = w->data;

	if (t->stage == STAGE_RESERVE && t->rc == 0)
		run_image(t);
	else
		task_finish(t);
}

static int start(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, bool removing, volume_cb cb, void *data, struct err *err)
{
	struct volume_task *t;
	int rc = volume_check_name(volume->name, err);

	if (rc < 0)
		return rc;
	if (volume->format != GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2 && volume->format != GANTRY__DISK_FORMAT__DISK_FORMAT_RAW)
		return err_set(err, ENOTSUP, "volume '%s/%s': a volume of a pool is raw or qcow2, nothing else", pool->name, volume->name);
	if (!removing && volume->size_bytes == 0)
		return err_set(err, EINVAL, "volume '%s/%s': a size is needed", pool->name, volume->name);
	t = mem_alloc(sizeof(*t));
	t->loop = loop;
	t->pool = pb_clone(pool);
	t->volume = pb_clone(volume);
	t->stage = removing ? STAGE_DELETE : STAGE_RESERVE;
	t->cb = cb;
	t->data = data;
	t->work.data = t;
	uv_queue_work(loop, &t->work, work, after_work);
	return 0;
}

int volume_create(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, volume_cb cb, void *data, struct err *err)
{
	return start(loop, pool, volume, false, cb, data, err);
}

int volume_delete(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, volume_cb cb, void *data, struct err *err)
{
	return start(loop, pool, volume, true, cb, data, err);
}
