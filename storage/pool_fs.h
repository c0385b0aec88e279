/* The few file operations that volumes and leases need, over a folder (dir) or an NFS export (libnfs). All calls
 * BLOCK: run them in libuv's thread pool (storage/storage_async.h). A pool_fs may be used by one thread at a time.
 * Bounded: an NFS call gives -ETIMEDOUT after 10 s at most. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/model.pb-c.h"

/* Names are relative to the pool: "web1.qcow2", ".gantry/web1/...". Errors name pool and file; -ESTALE is never given. */
struct pool_fs;
int pool_fs_open(const Gantry__Pool *pool, struct pool_fs **ret, struct err *err);
void pool_fs_close(struct pool_fs *fs);
int pool_fs_read(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err);     /* -ENOENT */
int pool_fs_create(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err);  /* exclusive: -EEXIST; durable */
int pool_fs_overwrite(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err); /* in place, same length class; durable */
int pool_fs_remove(struct pool_fs *fs, const char *name, struct err *err);
int pool_fs_exists(struct pool_fs *fs, const char *name, uint64_t *ret_size, struct err *err);
/* Names without "." and "..", unsorted, at most LIMIT_POOL_FOLDER_ENTRIES (-E2BIG). Owner: caller, pool_fs_free_list(). -ENOENT. */
int pool_fs_list(struct pool_fs *fs, const char *folder, char ***ret, size_t *ret_n, struct err *err);
/* At most max bytes from the start of a file of any size: is it readable? */
int pool_fs_peek(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err);
/* Makes a file that another program wrote, and its name, durable. */
int pool_fs_sync(struct pool_fs *fs, const char *name, struct err *err);
int pool_fs_rmdir(struct pool_fs *fs, const char *name, struct err *err);   /* -ENOTEMPTY, -ENOENT */
int pool_fs_mkdir(struct pool_fs *fs, const char *name, struct err *err);
/* -ENXIO: another folder is at the pool's path now (a mount came or went): close the pool and open it again. */
int pool_fs_space(struct pool_fs *fs, uint64_t *ret_total, uint64_t *ret_free, struct err *err);
void pool_fs_free_list(char **list, size_t n);
const char *pool_fs_pool_name(const struct pool_fs *fs);
