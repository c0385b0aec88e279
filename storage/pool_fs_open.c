/* Which kind of pool it is. Apart from pool_fs.c, which so needs no kind: the lease runs over a pool in memory as well. */
#include <errno.h>

#include "storage/pool_fs_ops.h"

int pool_fs_open(const Gantry__Pool *pool, struct pool_fs **ret, struct err *err)
{
	struct pool_fs *fs = NULL;
	int rc;

	if (pool->type == GANTRY__POOL_TYPE__POOL_TYPE_DIR)
		rc = pool_fs__open_dir(pool, &fs, err);
	else if (pool->type == GANTRY__POOL_TYPE__POOL_TYPE_NFS)
		rc = pool_fs__open_nfs(pool, &fs, err);
	else
		rc = err_set(err, ENOTSUP, "this version knows no pools of type %d", (int)pool->type);
	if (rc < 0)
		return err_prefix(err, rc, "pool '%s'", pool->name);
	fs->pool_name = str_dup(pool->name);
	*ret = fs;
	return 0;
}
