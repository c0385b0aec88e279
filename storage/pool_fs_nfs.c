/* A pool on an NFS export, by libnfs (NFSv3, no kernel mount). libnfs's synchronous calls wait for ever for a server
 * that went away, so its asynchronous calls are driven here by a poll loop of our own that knows a deadline. A lost
 * connection is made again, and the operation repeated, until the deadline: a server that restarts only delays us. */
#include <errno.h>
#include <fcntl.h>
#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>
#include <poll.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "lib/cleanup.h"
#include "storage/pool_fs_ops.h"

#define NFS_DEADLINE_MS 10000
#define NFS_RETRY_MS 200
#define NFS_SERVICE_MS 100
#define NFS_READ_CHUNK 65536

struct nfs_fs {
	struct pool_fs fs;
	char *server, *path;
	struct nfs_context *ctx; /* NULL: not connected */
	struct nfsfh *fh;        /* the one open file of the operation under way */
	int64_t deadline_ms;
};

/* One asynchronous call. Lives on the stack of its caller until done or until the context is destroyed. */
struct call {
	bool done;
	int status;
	void (*take)(struct call *c, void *data); /* copies what is valid in the callback only */
	void *into;
};

/* One try of an operation. -EAGAIN: the connection is gone. */
typedef int (*attempt_fn)(struct nfs_fs *n, void *args, struct err *err);

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void call_done(int status, struct nfs_context *ctx, void *data, void *private_data)
{
	struct call *c = private_data;

	if (!c)
		return;
	c->done = true;
	c->status = status;
	if (status >= 0 && c->take)
		c->take(c, data);
}

static void take_pointer(struct call *c, void *data)
{
	*(void **)c->into = data;
}

static void disconnect(struct nfs_fs *n)
{
	if (!n->ctx)
		return;
	/* First all calls are cancelled, for they refer to the open file; only then is that one closed. */
	rpc_disconnect(nfs_get_rpc_context(n->ctx), "given up");
	if (n->fh)
		nfs_close_async(n->ctx, n->fh, call_done, NULL);
	n->fh = NULL;
	nfs_destroy_context(n->ctx);
	n->ctx = NULL;
}

/* libnfs gives these for a call that had no answer, whatever the reason. ESTALE: the server restarted with new handles. */
static bool is_lost(int status)
{
	return status == -EFAULT || status == -EINTR || status == -ETIMEDOUT || status == -ESTALE || status == -EAGAIN;
}

/* The connection is of no use any more. It is closed here and at once, because a call without answer still points to
 * its caller's stack. */
static int lose(struct nfs_fs *n, const char *what, struct err *err)
{
	const char *text = nfs_get_error(n->ctx);

	err_set(err, EAGAIN, "%s: %s", what, text && *text ? text : "no answer");
	disconnect(n);
	return -EAGAIN;
}

/* Drives the loop until the call has an answer. queued: what its libnfs function returned. After -EAGAIN there is no
 * connection, no open file and no call any more. */
static int wait_for(struct nfs_fs *n, struct call *c, int queued, const char *what, struct err *err)
{
	if (queued < 0)
		return lose(n, what, err);
	while (!c->done) {
		int64_t left = n->deadline_ms - now_ms();
		struct pollfd p = {.fd = nfs_get_fd(n->ctx), .events = (short)nfs_which_events(n->ctx)};

		if (left <= 0 || (poll(&p, 1, left < NFS_SERVICE_MS ? (int)left : NFS_SERVICE_MS) < 0 && errno != EINTR))
			return lose(n, what, err);
		if (nfs_service(n->ctx, p.revents) < 0 && !c->done)
			return lose(n, what, err);
	}
	if (c->status >= 0)
		return 0;
	if (is_lost(c->status))
		return lose(n, what, err);
	return err_set(err, -c->status, "cannot %s: %s", what, strerror(-c->status));
}

static int connect_server(struct nfs_fs *n, struct err *err)
{
	struct call c = {0};
	int rc;

	if (n->ctx)
		return 0;
	n->ctx = nfs_init_context();
	if (!n->ctx)
		return err_set(err, ENOMEM, "libnfs gives no context");
	nfs_set_autoreconnect(n->ctx, 0); /* it would hide for how long; we reconnect ourselves */
	nfs_set_dircache(n->ctx, 0);      /* a lease must see what other hosts have just made */
	nfs_set_pagecache(n->ctx, 0);
	nfs_set_readahead(n->ctx, 0);
	rc = wait_for(n, &c, nfs_mount_async(n->ctx, n->server, n->path, call_done, &c), "mount", err);
	if (rc < 0 && rc != -EAGAIN) {
		disconnect(n);
		return err_set(err, -rc, "NFS server %s refuses export '%s': %s; see its list of exports", n->server, n->path,
			       strerror(-rc));
	}
	return rc;
}

static int with_server(struct pool_fs *fs, attempt_fn attempt, void *args, struct err *err)
{
	struct nfs_fs *n = (struct nfs_fs *)fs;
	struct err last = {0};
	int rc;

	n->deadline_ms = now_ms() + NFS_DEADLINE_MS;
	for (;;) {
		rc = connect_server(n, &last);
		if (rc == 0)
			rc = attempt(n, args, &last);
		if (rc != -EAGAIN)
			break;
		if (now_ms() + NFS_RETRY_MS >= n->deadline_ms)
			return err_set(err, ETIMEDOUT, "NFS server %s gave no answer for %d s (%s); is it up and reachable from this host?",
				       n->server, NFS_DEADLINE_MS / 1000, last.text);
		nanosleep(&(struct timespec){.tv_nsec = NFS_RETRY_MS * 1000000L}, NULL);
	}
	if (rc < 0)
		return err_set(err, -rc, "%s", last.text);
	return 0;
}

static int open_file(struct nfs_fs *n, const char *path, int flags, struct err *err)
{
	struct call c = {.take = take_pointer, .into = &n->fh};

	return wait_for(n, &c, nfs_open_async(n->ctx, path, flags, call_done, &c), "open", err);
}

static int close_file(struct nfs_fs *n, int rc, struct err *err)
{
	struct call c = {0};
	struct err ignored;
	struct nfsfh *fh = n->fh;
	int closed;

	if (rc == -EAGAIN || !fh)
		return rc; /* lose() has closed it */
	n->fh = NULL;
	closed = wait_for(n, &c, nfs_close_async(n->ctx, fh, call_done, &c), "close", rc < 0 ? &ignored : err);
	return rc < 0 ? rc : closed;
}

static int write_file(struct nfs_fs *n, const void *data, size_t len, struct err *err)
{
	for (size_t done = 0; done < len;) {
		struct call c = {0};
		int rc = wait_for(n, &c, nfs_pwrite_async(n->ctx, n->fh, done, len - done, (const char *)data + done, call_done, &c),
				  "write", err);

		if (rc < 0)
			return rc;
		if (c.status == 0)
			return err_set(err, EIO, "cannot write: no progress");
		done += (size_t)c.status;
	}
	struct call c = {0};

	return wait_for(n, &c, nfs_fsync_async(n->ctx, n->fh, call_done, &c), "commit", err);
}

struct file_args {
	char *path;
	const void *data;
	size_t len;
	struct buf *into;
};

static void take_bytes(struct call *c, void *data)
{
	buf_append(c->into, data, (size_t)c->status);
}

static int attempt_read(struct nfs_fs *n, void *data, struct err *err)
{
	struct file_args *a = data;
	struct buf got = {0};
	int rc = open_file(n, a->path, O_RDONLY, err);

	while (rc == 0 && got.len < a->len) {
		size_t part = a->len - got.len < NFS_READ_CHUNK ? a->len - got.len : NFS_READ_CHUNK;
		struct call c = {.take = take_bytes, .into = &got};

		rc = wait_for(n, &c, nfs_pread_async(n->ctx, n->fh, got.len, part, call_done, &c), "read", err);
		if (c.status == 0)
			break;
	}
	rc = close_file(n, rc, err);
	if (rc == 0)
		buf_append(a->into, got.data, got.len);
	buf_free(&got);
	return rc;
}

static int attempt_create(struct nfs_fs *n, void *data, struct err *err)
{
	struct file_args *a = data;
	struct call c = {.take = take_pointer, .into = &n->fh};
	int rc = wait_for(n, &c, nfs_create_async(n->ctx, a->path, O_EXCL | O_WRONLY, 0644, call_done, &c), "create", err);

	if (rc == 0)
		rc = write_file(n, a->data, a->len, err);
	return close_file(n, rc, err);
}

static int attempt_overwrite(struct nfs_fs *n, void *data, struct err *err)
{
	struct file_args *a = data;
	int rc = open_file(n, a->path, O_WRONLY, err);

	if (rc == 0)
		rc = write_file(n, a->data, a->len, err);
	return close_file(n, rc, err);
}

static int attempt_sync(struct nfs_fs *n, void *data, struct err *err)
{
	struct file_args *a = data;
	int rc = open_file(n, a->path, O_WRONLY, err);

	if (rc == 0)
		rc = write_file(n, NULL, 0, err);
	return close_file(n, rc, err);
}

static int attempt_remove(struct nfs_fs *n, void *data, struct err *err)
{
	struct file_args *a = data;
	struct call c = {0};

	return wait_for(n, &c, nfs_unlink_async(n->ctx, a->path, call_done, &c), "remove", err);
}

static int attempt_rmdir(struct nfs_fs *n, void *data, struct err *err)
{
	struct file_args *a = data;
	struct call c = {0};
	int rc = wait_for(n, &c, nfs_rmdir_async(n->ctx, a->path, call_done, &c), "remove the folder", err);

	/* Servers on some file systems say "exists" for a folder that is not empty. */
	return rc == -EEXIST ? err_set(err, ENOTEMPTY, "cannot remove the folder: %s", strerror(ENOTEMPTY)) : rc;
}

static int attempt_mkdir(struct nfs_fs *n, void *data, struct err *err)
{
	struct file_args *a = data;
	struct call c = {0};

	return wait_for(n, &c, nfs_mkdir2_async(n->ctx, a->path, 0755, call_done, &c), "create the folder", err);
}

static int run_file(struct pool_fs *fs, attempt_fn attempt, const char *name, struct file_args *a, struct err *err)
{
	_cleanup_free_ char *path = str_printf("/%s", name);

	a->path = path;
	return with_server(fs, attempt, a, err);
}

static int nfs_fs_read(struct pool_fs *fs, const char *name, size_t max, struct buf *ret, struct err *err)
{
	return run_file(fs, attempt_read, name, &(struct file_args){.len = max, .into = ret}, err);
}

static int nfs_fs_create(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	return run_file(fs, attempt_create, name, &(struct file_args){.data = data, .len = len}, err);
}

static int nfs_fs_overwrite(struct pool_fs *fs, const char *name, const void *data, size_t len, struct err *err)
{
	return run_file(fs, attempt_overwrite, name, &(struct file_args){.data = data, .len = len}, err);
}

static int nfs_fs_remove(struct pool_fs *fs, const char *name, struct err *err)
{
	return run_file(fs, attempt_remove, name, &(struct file_args){0}, err);
}

static int nfs_fs_rmdir(struct pool_fs *fs, const char *name, struct err *err)
{
	return run_file(fs, attempt_rmdir, name, &(struct file_args){0}, err);
}

static int nfs_fs_mkdir(struct pool_fs *fs, const char *name, struct err *err)
{
	return run_file(fs, attempt_mkdir, name, &(struct file_args){0}, err);
}

static int nfs_fs_sync(struct pool_fs *fs, const char *name, struct err *err)
{
	return run_file(fs, attempt_sync, name, &(struct file_args){0}, err);
}

static void take_size(struct call *c, void *data)
{
	*(uint64_t *)c->into = ((struct nfs_stat_64 *)data)->nfs_size;
}

struct size_args {
	const char *path;
	uint64_t *ret;
};

static int attempt_size(struct nfs_fs *n, void *data, struct err *err)
{
	struct size_args *a = data;
	struct call c = {.take = take_size, .into = a->ret};

	return wait_for(n, &c, nfs_stat64_async(n->ctx, a->path, call_done, &c), "look at it", err);
}

static int nfs_fs_size(struct pool_fs *fs, const char *name, uint64_t *ret, struct err *err)
{
	_cleanup_free_ char *path = str_printf("/%s", name);

	return with_server(fs, attempt_size, &(struct size_args){.path = path, .ret = ret}, err);
}

struct list_args {
	const char *path;
	int (*add)(void *data, const char *name);
	void *data;
};

/* Names are handed on only once the whole folder has come, so a repeated attempt cannot give one twice. */
static int attempt_list(struct nfs_fs *n, void *data, struct err *err)
{
	struct list_args *a = data;
	struct nfsdir *dir = NULL;
	struct call c = {.take = take_pointer, .into = &dir};
	int rc = wait_for(n, &c, nfs_opendir_async(n->ctx, a->path, call_done, &c), "read the folder", err);

	if (rc < 0)
		return rc;
	for (struct nfsdirent *e = nfs_readdir(n->ctx, dir); e && rc == 0; e = nfs_readdir(n->ctx, dir)) {
		if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
			rc = a->add(a->data, e->name);
	}
	nfs_closedir(n->ctx, dir);
	return rc;
}

static int nfs_fs_list(struct pool_fs *fs, const char *folder, int (*add)(void *data, const char *name), void *data,
		       struct err *err)
{
	_cleanup_free_ char *path = str_printf("/%s", folder);

	return with_server(fs, attempt_list, &(struct list_args){.path = path, .add = add, .data = data}, err);
}

static void take_statvfs(struct call *c, void *data)
{
	*(struct statvfs *)c->into = *(struct statvfs *)data;
}

static int attempt_space(struct nfs_fs *n, void *data, struct err *err)
{
	struct call c = {.take = take_statvfs, .into = data};

	return wait_for(n, &c, nfs_statvfs_async(n->ctx, "/", call_done, &c), "look at its space", err);
}

static int nfs_fs_space(struct pool_fs *fs, uint64_t *ret_total, uint64_t *ret_free, struct err *err)
{
	struct statvfs vfs = {0};
	int rc = with_server(fs, attempt_space, &vfs, err);

	if (rc < 0)
		return rc;
	*ret_total = (uint64_t)vfs.f_blocks * vfs.f_frsize;
	*ret_free = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	return 0;
}

static void nfs_fs_close(struct pool_fs *fs)
{
	struct nfs_fs *n = (struct nfs_fs *)fs;

	disconnect(n);
	free(n->server);
	free(n->path);
	free(n);
}

static const struct pool_fs_ops nfs_ops = {
	.close = nfs_fs_close,
	.read = nfs_fs_read,
	.create = nfs_fs_create,
	.overwrite = nfs_fs_overwrite,
	.remove = nfs_fs_remove,
	.size = nfs_fs_size,
	.list = nfs_fs_list,
	.mkdir = nfs_fs_mkdir,
	.rmdir = nfs_fs_rmdir,
	.sync = nfs_fs_sync,
	.space = nfs_fs_space,
};

static int attempt_nothing(struct nfs_fs *n, void *args, struct err *err)
{
	return 0;
}

int pool_fs__open_nfs(const Gantry__Pool *pool, struct pool_fs **ret, struct err *err)
{
	const char *address = strncmp(pool->target, "nfs://", 6) == 0 ? pool->target + 6 : NULL;
	const char *slash = address ? strchr(address, '/') : NULL;
	struct nfs_fs *n;
	int rc;

	if (!slash || slash == address || !slash[1] || strpbrk(address, "?#"))
		return err_set(err, EINVAL, "its target '%s' is not of the form nfs://ADDRESS/EXPORT[/PATH] without options",
			       pool->target);
	n = mem_alloc(sizeof(*n));
	n->fs.ops = &nfs_ops;
	n->server = str_printf("%.*s", (int)(slash - address), address);
	n->path = str_dup(slash);
	rc = with_server(&n->fs, attempt_nothing, NULL, err);
	if (rc < 0) {
		nfs_fs_close(&n->fs);
		return rc;
	}
	*ret = &n->fs;
	return 0;
}
