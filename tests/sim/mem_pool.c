#include "tests/sim/mem_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SPACE_BYTES (1ull << 40)

static struct mem_files *files_of(struct pool_fs *fs)
{
	return ((struct mem_pool *)fs)->files;
}

static int fail(struct err *err, int errnum)
{
	return err_set(err, errnum, "%s", strerror(errnum));
}

static struct mem_file *find(struct mem_files *files, const char *path, size_t len)
{
	for (size_t i = 0; i < files->n; i++)
		if (!strncmp(files->list[i].path, path, len) && !files->list[i].path[len])
			return &files->list[i];
	return NULL;
}

/* A file of that name; else what a file system would say. */
static struct mem_file *file_of(struct pool_fs *fs, const char *name, int *ret_errnum)
{
	struct mem_file *f = find(files_of(fs), name, strlen(name));

	*ret_errnum = !f ? ENOENT : f->is_folder ? EISDIR : 0;
	return *ret_errnum ? NULL : f;
}

/* 0: the folder that would hold name is there. */
static int parent_error(struct mem_files *files, const char *name)
{
	const char *slash = strrchr(name, '/');
	const struct mem_file *parent = slash ? find(files, name, (size_t)(slash - name)) : NULL;

	if (!slash)
		return 0;
	return !parent ? ENOENT : parent->is_folder ? 0 : ENOTDIR;
}

/* The last part of path if it lies directly in the folder. */
static const char *within(const char *path, const char *folder)
{
	size_t len = strlen(folder);

	return !strncmp(path, folder, len) && path[len] == '/' && !strchr(path + len + 1, '/') ? path + len + 1 : NULL;
}

static int add(struct mem_files *files, const char *name, bool is_folder, const void *data, size_t len, struct err *err)
{
	int errnum = parent_error(files, name);
	struct mem_file *f;

	if (errnum)
		return fail(err, errnum);
	if (find(files, name, strlen(name)))
		return fail(err, EEXIST);
	if (files->n == files->cap) {
		files->cap = files->cap ? 2 * files->cap : 4;
		files->list = mem_realloc(files->list, files->cap * sizeof(*files->list));
	}
	f = &files->list[files->n++];
	*f = (struct mem_file){.path = str_dup(name), .is_folder = is_folder};
	buf_append(&f->data, data, len);
	files->version++;
	return 0;
}

static void drop(struct mem_files *files, struct mem_file *f)
{
	free(f->path);
	buf_free(&f->data);
	memmove(f, f + 1, (size_t)(files->list + files->n - f - 1) * sizeof(*f));
	files->n--;
	files->version++;
}

static void mem_close(struct pool_fs *fs)
{
	free(fs);
}

static int mem_read(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err)
{
	int errnum;
	const struct mem_file *f = file_of(fs, name, &errnum);

	if (!f)
		return fail(err, errnum);
	buf_append(ret, f->data.data, f->data.len < max ? f->data.len : max);
	return 0;
}

static int mem_create(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	return add(files_of(fs), name, false, data, len, err);
}

/* In place: what lies behind it stays. */
static int mem_overwrite(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	int errnum;
	struct mem_file *f = file_of(fs, name, &errnum);

	if (!f)
		return fail(err, errnum);
	if (len > f->data.len) {
		f->data.len = 0;
		buf_append(&f->data, data, len);
	} else if (len) {
		memcpy(f->data.data, data, len);
	}
	files_of(fs)->version++;
	return 0;
}

static int mem_remove(struct pool_fs *fs, const char *name, struct err *err)
{
	int errnum;
	struct mem_file *f = file_of(fs, name, &errnum);

	if (!f)
		return fail(err, errnum);
	drop(files_of(fs), f);
	return 0;
}

static int mem_size(struct pool_fs *fs, const char *name, uint64_t *ret, struct err *err)
{
	const struct mem_file *f = find(files_of(fs), name, strlen(name));

	if (!f)
		return fail(err, ENOENT);
	*ret = f->data.len;
	return 0;
}

static int folder_error(struct mem_files *files, const char *name)
{
	const struct mem_file *f = find(files, name, strlen(name));

	return !f ? ENOENT : f->is_folder ? 0 : ENOTDIR;
}

static int mem_list(struct pool_fs *fs, const char *folder, int (*add_name)(void *data, const char *name), void *data, struct err *err)
{
	const struct mem_files *files = files_of(fs);
	int errnum = folder_error(files_of(fs), folder), rc = 0;

	if (errnum)
		return fail(err, errnum);
	for (size_t i = 0; i < files->n && rc == 0; i++) {
		const char *name = within(files->list[i].path, folder);

		rc = name ? add_name(data, name) : 0;
	}
	return rc;
}

static int mem_mkdir(struct pool_fs *fs, const char *name, struct err *err)
{
	return add(files_of(fs), name, true, NULL, 0, err);
}

static int mem_rmdir(struct pool_fs *fs, const char *name, struct err *err)
{
	struct mem_files *files = files_of(fs);
	int errnum = folder_error(files, name);

	for (size_t i = 0; !errnum && i < files->n; i++)
		errnum = within(files->list[i].path, name) ? ENOTEMPTY : 0;
	if (errnum)
		return fail(err, errnum);
	drop(files, find(files, name, strlen(name)));
	return 0;
}

static int mem_sync(struct pool_fs *fs, const char *name, struct err *err)
{
	return find(files_of(fs), name, strlen(name)) ? 0 : fail(err, ENOENT);
}

static int mem_space(struct pool_fs *fs, uint64_t *ret_total, uint64_t *ret_free, struct err *err)
{
	*ret_total = *ret_free = SPACE_BYTES;
	return 0;
}

static const struct pool_fs_ops mem_ops = {
	.close = mem_close, .read = mem_read, .create = mem_create, .overwrite = mem_overwrite, .remove = mem_remove, .size = mem_size,
	.list = mem_list, .mkdir = mem_mkdir, .rmdir = mem_rmdir, .sync = mem_sync, .space = mem_space,
};

void mem_pool_init(struct mem_pool *p, char *name, struct mem_files *files)
{
	*p = (struct mem_pool){.fs = {.ops = &mem_ops, .pool_name = name}, .files = files};
}

void mem_files_clear(struct mem_files *files)
{
	while (files->n)
		drop(files, &files->list[files->n - 1]);
	free(files->list);
	*files = (struct mem_files){0};
}
