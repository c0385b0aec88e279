#include "storage/volume.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/limits.h"
#include "lib/subprocess.h"
#include "proto/pb.h"
#include "storage/lease.h"
#include "storage/pool_fs.h"

#define QEMU_IMG_TIMEOUT_MS 60000
#define QCOW2_OVERHEAD_BYTES (1u << 20)   /* header and first tables of an empty image */

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

struct volume_task {
	uv_work_t work;
	uv_loop_t *loop;
	Gantry__Pool *pool;
	Gantry__Volume *volume;
	bool remove;
	bool made;              /* qemu-img has made the file */
	int rc;
	uint64_t size_bytes;
	struct err err;
	volume_cb cb;
	void *data;
};

static void task_finish(struct volume_task *t)
{
	t->cb(t->data, t->rc, t->size_bytes, t->rc ? &t->err : NULL);
	gantry__pool__free_unpacked(t->pool, NULL);
	gantry__volume__free_unpacked(t->volume, NULL);
	free(t);
}

/* ---- the blocking parts, in the thread pool ----------------------------------- */

static int check_before(struct volume_task *t, struct pool_fs *fs, const char *file)
{
	uint64_t total = 0, available = 0, need;
	int rc = pool_fs_exists(fs, file, NULL, NULL);

	if (rc == 0)
		return err_set(&t->err, EEXIST, "volume '%s/%s': the file %s is in the pool already: take another name, or remove it there",
			       t->pool->name, t->volume->name, file);
	rc = pool_fs_space(fs, &total, &available, &t->err);
	if (rc)
		return rc;
	need = t->volume->format == GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2 ? QCOW2_OVERHEAD_BYTES : t->volume->size_bytes;
	if (need > available)
		return err_set(&t->err, ENOSPC, "volume '%s/%s' needs %" PRIu64 " MiB, pool '%s' has %" PRIu64 " MiB free", t->pool->name,
			       t->volume->name, need >> 20, t->pool->name, available >> 20);
	return 0;
}

static int remove_volume(struct volume_task *t, struct pool_fs *fs, const char *file)
{
	int rc = lease_remove_all(fs, t->volume->name, &t->err);

	if (rc)
		return rc;
	rc = pool_fs_remove(fs, file, &t->err);
	return rc == -ENOENT ? 0 : rc;
}

static void work(uv_work_t *w)
{
	struct volume_task *t = w->data;
	char *file = volume_file_name(t->volume);
	struct pool_fs *fs = NULL;

	t->rc = pool_fs_open(t->pool, &fs, &t->err);
	if (!t->rc && t->remove)
		t->rc = remove_volume(t, fs, file);
	else if (!t->rc && t->made)
		t->rc = pool_fs_sync(fs, file, &t->err);
	else if (!t->rc)
		t->rc = check_before(t, fs, file);
	if (!t->rc && t->made)
		t->rc = pool_fs_exists(fs, file, &t->size_bytes, &t->err);
	if (fs)
		pool_fs_close(fs);
	free(file);
}

/* ---- qemu-img ------------------------------------------------------------------- */

static void after_work(uv_work_t *w, int status);

static void on_image(void *data, const struct subprocess_result *result)
{
	struct volume_task *t = data;
	int len;

	if (result->rc == 0 && result->exit_status == 0) {
		t->made = true;
		uv_queue_work(t->loop, &t->work, work, after_work);
		return;
	}
	len = (int)strcspn(result->err_out ? result->err_out : "", "\n");
	if (result->rc == -ETIMEDOUT)
		t->rc = err_set(&t->err, ETIMEDOUT, "volume '%s/%s': qemu-img did not end within %d s: is the pool's server there?", t->pool->name,
				t->volume->name, QEMU_IMG_TIMEOUT_MS / 1000);
	else if (result->rc < 0)
		t->rc = err_set(&t->err, -result->rc, "volume '%s/%s': qemu-img cannot be run: %s", t->pool->name, t->volume->name,
				strerror(-result->rc));
	else
		t->rc = err_set(&t->err, EIO, "volume '%s/%s': qemu-img: %.*s", t->pool->name, t->volume->name, len,
				result->err_out ? result->err_out : "");
	task_finish(t);
}

static void run_image(struct volume_task *t)
{
	char *uri = volume_uri(t->pool, t->volume), *size = str_printf("%" PRIu64, t->volume->size_bytes);
	const char *argv[] = {"qemu-img", "create", "-q", "-f", format_word(t->volume->format), uri, size, NULL};
	struct subprocess_options options = {.argv = argv, .timeout_ms = QEMU_IMG_TIMEOUT_MS};

	t->rc = subprocess_run(t->loop, &options, on_image, t, NULL, &t->err);
	free(uri);
	free(size);
	if (t->rc)
		task_finish(t);
}

static void after_work(uv_work_t *w, int status)
{
	struct volume_task *t = w->data;

	if (t->rc || t->remove || t->made)
		task_finish(t);
	else
		run_image(t);
}

static int start(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, bool removing, volume_cb cb, void *data, struct err *err)
{
	struct volume_task *t;
	int rc = volume_check_name(volume->name, err);

	if (rc)
		return rc;
	if (!removing && !volume->size_bytes)
		return err_set(err, EINVAL, "volume '%s/%s': a size is needed", pool->name, volume->name);
	t = mem_alloc(sizeof(*t));
	t->loop = loop;
	t->pool = pb_clone(pool);
	t->volume = pb_clone(volume);
	t->remove = removing;
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
