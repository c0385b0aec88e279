/* A pool in memory: folders and files behind struct pool_fs_ops, as the folder of a host or an NFS export would be. The
 * simulator runs the lease over it; test_pool_fs.c runs the suite of every kind of pool over it. Never full, never away.
 * Ownership: the files belong to who declared them; several pools, one a host, may look at the same files. */
#pragma once

#include "storage/pool_fs_ops.h"

struct mem_file { char *path; bool is_folder; struct buf data; };

struct mem_files {
	struct mem_file *list;             /* in the order of their making */
	size_t n, cap;
	uint64_t version;                  /* goes up with each change */
};

struct mem_pool {
	struct pool_fs fs;                 /* first */
	struct mem_files *files;
};

/* name: stays the caller's unless pool_fs_close() ends the pool, which frees it and the pool. */
void mem_pool_init(struct mem_pool *p, char *name, struct mem_files *files);
void mem_files_clear(struct mem_files *files);
