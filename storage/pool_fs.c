#include "storage/pool_fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/limits.h"
#include "storage/pool_fs_ops.h"

void pool_fs_close(struct pool_fs *fs)
{
	if (!fs)
		return;
	free(fs->pool_name);
	fs->ops->close(fs); /* frees fs */
}

const char *pool_fs_pool_name(const struct pool_fs *fs)
{
	return fs->pool_name;
}

/* Names come from the model, that is from users: none may lead out of the pool. */
static int check_name(const struct pool_fs *fs, const char *name, struct err *err)
{
	for (const char *p = name;; p++) {
		size_t len = strcspn(p, "/");

		if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
			return err_set(err, EINVAL, "pool '%s': '%s' is not a name within the pool", fs->pool_name,
				       name);
		p += len;
		if (!*p)
			return 0;
	}
}

static int name_error(const struct pool_fs *fs, const char *name, int rc, struct err *err)
{
	/* A stale file handle must never look like a lease's stale generation, for which domains are killed. */
	if (rc == -ESTALE)
		rc = -EIO;
	return rc < 0 ? err_prefix(err, rc, "pool '%s': '%s'", fs->pool_name, name) : rc;
}

int pool_fs_peek(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err)
{
	int rc = check_name(fs, name, err);

	return rc < 0 ? rc : name_error(fs, name, fs->ops->read(fs, name, max, ret, err), err);
}

int pool_fs_read(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err)
{
	size_t before = ret->len;
	int rc = pool_fs_peek(fs, name, max + 1, ret, err);

	if (rc == 0 && ret->len - before > max) {
		ret->len = before;
		rc = err_set(err, EFBIG, "pool '%s': '%s' is larger than %zu bytes", fs->pool_name, name, max);
	}
	return rc;
}

int pool_fs_create(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	int rc = check_name(fs, name, err);

	return rc < 0 ? rc : name_error(fs, name, fs->ops->create(fs, name, data, len, err), err);
}

int pool_fs_overwrite(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	int rc = check_name(fs, name, err);

	return rc < 0 ? rc : name_error(fs, name, fs->ops->overwrite(fs, name, data, len, err), err);
}

int pool_fs_remove(struct pool_fs *fs, const char *name, struct err *err)
{
	int rc = check_name(fs, name, err);

	return rc < 0 ? rc : name_error(fs, name, fs->ops->remove(fs, name, err), err);
}

int pool_fs_exists(struct pool_fs *fs, const char *name, uint64_t *ret_size, struct err *err)
{
	uint64_t size = 0;
	int rc = check_name(fs, name, err);

	if (rc < 0)
		return rc;
	rc = fs->ops->size(fs, name, &size, err);
	if (rc == 0 && ret_size)
		*ret_size = size;
	return name_error(fs, name, rc, err);
}

struct listing {
	char **names;
	size_t n, cap;
};

static int listing_add(void *data, const char *name)
{
	struct listing *l = data;

	if (l->n == LIMIT_POOL_FOLDER_ENTRIES)
		return -E2BIG;
	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 16;
		l->names = mem_realloc(l->names, l->cap * sizeof(*l->names));
	}
	l->names[l->n++] = str_dup(name);
	return 0;
}

int pool_fs_list(struct pool_fs *fs, const char *folder, char ***ret, size_t *ret_n, struct err *err)
{
	struct listing l = {0};
	int rc = check_name(fs, folder, err);

	if (rc < 0)
		return rc;
	rc = fs->ops->list(fs, folder, listing_add, &l, err);
	if (rc == -E2BIG)
		err_set(err, E2BIG, "more than %d names in it", LIMIT_POOL_FOLDER_ENTRIES);
	if (rc < 0) {
		pool_fs_free_list(l.names, l.n);
		return name_error(fs, folder, rc, err);
	}
	*ret = l.names;
	*ret_n = l.n;
	return 0;
}

void pool_fs_free_list(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

int pool_fs_mkdir(struct pool_fs *fs, const char *name, struct err *err)
{
	int rc = check_name(fs, name, err);

	return rc < 0 ? rc : name_error(fs, name, fs->ops->mkdir(fs, name, err), err);
}

int pool_fs_rmdir(struct pool_fs *fs, const char *name, struct err *err)
{
	int rc = check_name(fs, name, err);

	return rc < 0 ? rc : name_error(fs, name, fs->ops->rmdir(fs, name, err), err);
}

int pool_fs_sync(struct pool_fs *fs, const char *name, struct err *err)
{
	int rc = check_name(fs, name, err);

	return rc < 0 ? rc : name_error(fs, name, fs->ops->sync(fs, name, err), err);
}

int pool_fs_space(struct pool_fs *fs, uint64_t *ret_total, uint64_t *ret_free, struct err *err)
{
	uint64_t total = 0, available = 0;
	int rc = fs->ops->space(fs, &total, &available, err);

	if (rc < 0)
		return err_prefix(err, rc, "pool '%s'", fs->pool_name);
	*ret_total = total;
	*ret_free = available;
	return 0;
}
