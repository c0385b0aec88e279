#include "lib/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"

/* The folder of a path as a string of its own ("." if there is none). */
static char *atomic__folder(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return str_dup(".");
	return slash == path ? str_dup("/") : str_printf("%.*s", (int)(slash - path), path);
}

static int atomic__write_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* The new content under its temporary name, on the disk. */
static int atomic__fill(int fd, const void *data, size_t len, mode_t mode)
{
	int rc = atomic__write_all(fd, data, len);

	if (rc < 0)
		return rc;
	/* mkostemp() gave 0600; the umask does not count here: the caller said what he wants. */
	if (fchmod(fd, mode) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int atomic_file_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	_cleanup_free_ char *folder = atomic__folder(path);
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	/* Hidden, so that those who read all files of a folder do not take what a crash left for a file. */
	_cleanup_free_ char *temporary = str_printf("%s/.%s.XXXXXX", folder, name);
	_cleanup_close_ int folder_fd = -1;
	_cleanup_close_ int fd = -1;
	int rc;

	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0)
		return err_set(err, errno, "cannot write %s: %s", path, strerror(errno));
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return err_set(err, errno, "cannot write %s: %s", path, strerror(errno));
	rc = atomic__fill(fd, data, len, mode);
	if (rc == 0 && rename(temporary, path) < 0)
		rc = -errno;
	if (rc < 0) {
		unlink(temporary);
		return err_set(err, -rc, "cannot write %s: %s", path, strerror(-rc));
	}
	/* The name is on the disk only when its folder is. */
	if (fsync(folder_fd) < 0)
		return err_set(err, errno, "cannot write %s: %s", path, strerror(errno));
	return 0;
}

int atomic_file_read(const char *path, size_t max, struct buf *ret, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t before = ret->len, got = 0;

	if (fd < 0)
		return err_set(err, errno, "cannot read %s: %s", path, strerror(errno));
	for (;;) {
		/* One byte more than allowed tells that there is more. */
		size_t want = max + 1 - got < 65536 ? max + 1 - got : 65536;
		ssize_t n = read(fd, buf_reserve(ret, want), want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			ret->len = before;
			return err_set(err, errno, "cannot read %s: %s", path, strerror(errno));
		}
		if (n == 0)
			return 0;
		got += (size_t)n;
		ret->len += (size_t)n;
		if (got > max) {
			ret->len = before;
			return err_set(err, EFBIG, "%s is larger than %zu bytes", path, max);
		}
	}
}

int path_make_dirs(const char *path, mode_t mode, struct err *err)
{
	_cleanup_free_ char *copy = str_dup(path);
	struct stat st;

	for (char *slash = copy; (slash = strchr(slash + 1, '/'));) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return err_set(err, errno, "cannot make the folder %s: %s", copy, strerror(errno));
		*slash = '/';
	}
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return err_set(err, errno, "cannot make the folder %s: %s", path, strerror(errno));
	if (stat(path, &st) < 0)
		return err_set(err, errno, "cannot make the folder %s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "cannot make the folder %s: a file is in its place", path);
	return 0;
}
