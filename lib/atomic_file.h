/* Files that are whole or not there: write to a temporary name, fsync, rename, fsync of the folder. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "lib/buf.h"
#include "lib/err.h"

int atomic_file_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
/* Reads a whole file of at most max bytes into ret (appended; freed by the caller). -ENOENT, -EFBIG. */
int atomic_file_read(const char *path, size_t max, struct buf *ret, struct err *err);
/* mkdir -p with mode 0755 for parents and `mode` for the last. */
int path_make_dirs(const char *path, mode_t mode, struct err *err);
