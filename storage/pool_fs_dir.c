/* A pool in a folder of this host, or of a cluster file system that is mounted at the same place everywhere. All access
 * is relative to one open folder and follows no symbolic link out of it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "storage/pool_fs_ops.h"

struct dir_fs {
	struct pool_fs fs;
	char *path;
	int root; /* also pins the mount it is on */
};

static int dir_root(struct pool_fs *fs)
{
	return ((struct dir_fs *)fs)->root;
}

static int sys_error(struct err *err, const char *what)
{
	int errnum = errno;

	return err_set(err, errnum, "cannot %s: %s", what, strerror(errnum));
}

/* RESOLVE_BENEATH: a symbolic link that somebody put into the pool cannot make us write elsewhere. */
static int open_beneath(struct pool_fs *fs, const char *name, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC), .mode = mode, .resolve = RESOLVE_BENEATH};

	return (int)syscall(SYS_openat2, dir_root(fs), name, &how, sizeof(how));
}

/* The folder that holds name, and name's last part. */
static int open_parent(struct pool_fs *fs, const char *name, const char **ret_last)
{
	const char *slash = strrchr(name, '/');
	_cleanup_free_ char *parent = slash ? str_printf("%.*s", (int)(slash - name), name) : str_dup(".");

	*ret_last = slash ? slash + 1 : name;
	return open_beneath(fs, parent, O_RDONLY | O_DIRECTORY, 0);
}

static int write_all(int fd, const void *data, size_t len, struct err *err)
{
	const char *p = data;

	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, p + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? sys_error(err, "write") : err_set(err, EIO, "cannot write: no progress");
		done += (size_t)n;
	}
	return fsync(fd) < 0 ? sys_error(err, "fsync") : 0;
}

static int dir_read(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err)
{
	_cleanup_close_ int fd = open_beneath(fs, name, O_RDONLY, 0);

	if (fd < 0)
		return sys_error(err, "open");
	for (size_t left = max; left > 0;) {
		size_t part = left < 65536 ? left : 65536;
		ssize_t n = read(fd, buf_reserve(ret, part), part);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sys_error(err, "read");
		if (n == 0)
			return 0;
		ret->len += (size_t)n;
		left -= (size_t)n;
	}
	return 0;
}

static int dir_create(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	const char *last;
	_cleanup_close_ int parent = open_parent(fs, name, &last);
	_cleanup_close_ int fd = -1;
	int rc;

	if (parent < 0)
		return sys_error(err, "open the folder");
	fd = openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return sys_error(err, "create");
	rc = write_all(fd, data, len, err);
	if (rc < 0)
		return rc;
	return fsync(parent) < 0 ? sys_error(err, "fsync the folder") : 0;
}

static int dir_overwrite(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	_cleanup_close_ int fd = open_beneath(fs, name, O_WRONLY, 0);

	return fd < 0 ? sys_error(err, "open") : write_all(fd, data, len, err);
}

static int unlink_flags(struct pool_fs *fs, const char *name, int flags, struct err *err)
{
	const char *last;
	_cleanup_close_ int parent = open_parent(fs, name, &last);

	if (parent < 0)
		return sys_error(err, "open the folder");
	if (unlinkat(parent, last, flags) < 0) {
		if (errno == EEXIST)
			errno = ENOTEMPTY;
		return sys_error(err, "remove");
	}
	return fsync(parent) < 0 ? sys_error(err, "fsync the folder") : 0;
}

static int dir_remove(struct pool_fs *fs, const char *name, struct err *err)
{
	return unlink_flags(fs, name, 0, err);
}

static int dir_rmdir(struct pool_fs *fs, const char *name, struct err *err)
{
	return unlink_flags(fs, name, AT_REMOVEDIR, err);
}

static int dir_mkdir(struct pool_fs *fs, const char *name, struct err *err)
{
	const char *last;
	_cleanup_close_ int parent = open_parent(fs, name, &last);

	if (parent < 0)
		return sys_error(err, "open the folder");
	if (mkdirat(parent, last, 0755) < 0)
		return sys_error(err, "create the folder");
	return fsync(parent) < 0 ? sys_error(err, "fsync the folder") : 0;
}

static int dir_size(struct pool_fs *fs, const char *name, uint64_t *ret, struct err *err)
{
	_cleanup_close_ int fd = open_beneath(fs, name, O_PATH, 0);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return sys_error(err, "look at it");
	*ret = (uint64_t)st.st_size;
	return 0;
}

static int dir_list(struct pool_fs *fs, const char *folder, int (*add)(void *data, const char *name), void *data,
		    struct err *err)
{
	int fd = open_beneath(fs, folder, O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int rc = 0;

	if (!dir) {
		rc = sys_error(err, "open the folder");
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (rc == 0) {
		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			if (errno)
				rc = sys_error(err, "read the folder");
			break;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = add(data, entry->d_name);
	}
	closedir(dir);
	return rc;
}

static int dir_sync(struct pool_fs *fs, const char *name, struct err *err)
{
	const char *last;
	_cleanup_close_ int parent = open_parent(fs, name, &last);
	_cleanup_close_ int fd = parent < 0 ? -1 : open_beneath(fs, name, O_RDONLY, 0);

	if (fd < 0)
		return sys_error(err, "open");
	return fsync(fd) < 0 || fsync(parent) < 0 ? sys_error(err, "fsync") : 0;
}

static int dir_space(struct pool_fs *fs, uint64_t *ret_total, uint64_t *ret_free, struct err *err)
{
	const char *path = ((struct dir_fs *)fs)->path;
	struct stat held, now;
	struct statvfs vfs;

	/* Mounted over since we opened it: QEMU would open other files than those we lease. */
	if (fstat(dir_root(fs), &held) < 0 || stat(path, &now) < 0)
		return sys_error(err, "look at its folder");
	if (held.st_dev != now.st_dev || held.st_ino != now.st_ino)
		return err_set(err, ENXIO, "folder '%s' is another one than before: was something mounted there?", path);
	if (fstatvfs(dir_root(fs), &vfs) < 0)
		return sys_error(err, "look at its space");
	*ret_total = (uint64_t)vfs.f_blocks * vfs.f_frsize;
	*ret_free = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	return 0;
}

static void dir_close(struct pool_fs *fs)
{
	close(dir_root(fs));
	free(((struct dir_fs *)fs)->path);
	free(fs);
}

static const struct pool_fs_ops dir_ops = {
	.close = dir_close,
	.read = dir_read,
	.create = dir_create,
	.overwrite = dir_overwrite,
	.remove = dir_remove,
	.size = dir_size,
	.list = dir_list,
	.mkdir = dir_mkdir,
	.rmdir = dir_rmdir,
	.sync = dir_sync,
	.space = dir_space,
};

int pool_fs__open_dir(const Gantry__Pool *pool, struct pool_fs **ret, struct err *err)
{
	struct dir_fs *d;
	int fd;

	if (pool->target[0] != '/')
		return err_set(err, EINVAL, "its target '%s' is not an absolute path", pool->target);
	fd = open(pool->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		int errnum = errno;

		return err_set(err, errnum, "cannot open folder '%s' on this host: %s; make or mount it", pool->target,
			       strerror(errnum));
	}
	d = mem_alloc(sizeof(*d));
	d->fs.ops = &dir_ops;
	d->root = fd;
	d->path = str_dup(pool->target);
	*ret = &d->fs;
	return 0;
}
