/* What a kind of pool implements (pool_fs_dir.c, pool_fs_nfs.c; a fake in the tests of the lease). Internal to storage/.
 * Names are checked before they come here. An operation fails with a negative errno and the reason alone in err;
 * pool_fs.c puts the pool's and the file's name before it. */
#pragma once

#include "storage/pool_fs.h"

struct pool_fs_ops {
	void (*close)(struct pool_fs *fs);
	/* At most max bytes from the start, appended to ret. */
	int (*read)(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err);
	int (*create)(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err);
	int (*overwrite)(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err);
	int (*remove)(struct pool_fs *fs, const char *name, struct err *err);
	int (*size)(struct pool_fs *fs, const char *name, uint64_t *ret, struct err *err);
	/* Calls add() for each name but "." and ".."; a failure of add() ends it. */
	int (*list)(struct pool_fs *fs, const char *folder, int (*add)(void *data, const char *name), void *data,
		    struct err *err);
	int (*mkdir)(struct pool_fs *fs, const char *name, struct err *err);
	int (*rmdir)(struct pool_fs *fs, const char *name, struct err *err);
	int (*sync)(struct pool_fs *fs, const char *name, struct err *err);
	int (*space)(struct pool_fs *fs, uint64_t *ret_total, uint64_t *ret_free, struct err *err);
};

/* The first member of each kind's own struct. */
struct pool_fs {
	const struct pool_fs_ops *ops;
	char *pool_name;
};

int pool_fs__open_dir(const Gantry__Pool *pool, struct pool_fs **ret, struct err *err);
int pool_fs__open_nfs(const Gantry__Pool *pool, struct pool_fs **ret, struct err *err);
