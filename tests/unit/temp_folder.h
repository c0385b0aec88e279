/* A folder of a test's own that goes with the test. */
#pragma once

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void temp_folder_make(char *ret, size_t size)
{
	const char *base = getenv("TMPDIR");

	snprintf(ret, size, "%s/gantry-XXXXXX", base && strlen(base) < 40 ? base : "/tmp");
	if (!mkdtemp(ret))
		abort();
}

static inline int temp_folder__remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static inline void temp_folder_remove(const char *folder)
{
	nftw(folder, temp_folder__remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
