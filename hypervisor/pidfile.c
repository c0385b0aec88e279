#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/pidfile.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"

#define PIDFILE_BYTES_MAX 4608
#define PIDFILE_STAT_BYTES_MAX 4096

/* What makes a process this process. */
struct identity {
	unsigned long long start_time;
	char binary[4096];
};

static int read_start_time(pid_t pid, unsigned long long *ret)
{
	char path[64], text[PIDFILE_STAT_BYTES_MAX], *at;
	unsigned long long value;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (!(f = fopen(path, "re")))
		return -errno;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	/* The second field is a name in parentheses that may itself hold blanks and parentheses: proc(5). */
	if (!(at = strrchr(text, ')')))
		return -EIO;
	for (int field = 2; field < 22; field++)
		if (!(at = strchr(at + 1, ' ')))
			return -EIO;
	if (sscanf(at, " %llu", &value) != 1)
		return -EIO;
	*ret = value;
	return 0;
}

static int identity_read(pid_t pid, struct identity *ret)
{
	static const char gone[] = " (deleted)";
	char path[64];
	ssize_t n;
	int rc;

	rc = read_start_time(pid, &ret->start_time);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, ret->binary, sizeof(ret->binary) - 1);
	if (n < 0)
		return -errno;
	ret->binary[n] = '\0';
	/* An upgrade of the package replaces the file under a running QEMU: still the same process. */
	if ((size_t)n > strlen(gone) && !strcmp(ret->binary + n - strlen(gone), gone))
		ret->binary[(size_t)n - strlen(gone)] = '\0';
	return 0;
}

int pidfile_write(const char *path, pid_t pid, struct err *err)
{
	struct identity id;
	struct buf text = {0};
	int rc;

	rc = identity_read(pid, &id);
	if (rc < 0)
		return err_set(err, -rc, "process %d: cannot be identified in /proc: %s", (int)pid, strerror(-rc));
	buf_printf(&text, "%d %llu %s\n", (int)pid, id.start_time, id.binary);
	rc = atomic_file_write(path, text.data, text.len, 0600, err);
	buf_free(&text);
	return rc;
}

static int parse(const char *path, const char *text, pid_t *ret_pid, struct identity *ret, struct err *err)
{
	int pid, used = 0;

	if (sscanf(text, "%d %llu %n", &pid, &ret->start_time, &used) < 2 || pid <= 0 || !used)
		return err_set(err, ESRCH, "%s: is no pid file of ours", path);
	snprintf(ret->binary, sizeof(ret->binary), "%s", text + used);
	ret->binary[strcspn(ret->binary, "\n")] = '\0';
	*ret_pid = pid;
	return 0;
}

int pidfile_find(const char *path, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
	_cleanup_close_ int fd = -1;
	struct identity noted, actual;
	struct buf text = {0};
	pid_t pid = 0;
	int rc;

	rc = atomic_file_read(path, PIDFILE_BYTES_MAX, &text, err);
	if (rc == 0)
		rc = parse(path, buf_str(&text), &pid, &noted, err);
	else if (rc == -ENOENT)
		rc = -ESRCH;
	buf_free(&text);
	if (rc < 0)
		return rc;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return err_set(err, errno, "process %d of %s: %s", (int)pid, path, strerror(errno));
	rc = identity_read(pid, &actual);
	if (rc < 0)
		return err_set(err, ESRCH, "process %d of %s: has ended", (int)pid, path);
	if (actual.start_time != noted.start_time || strcmp(actual.binary, noted.binary))
		return err_set(err, ESRCH, "process %d of %s: another program has this pid now", (int)pid, path);
	*ret_pid = pid;
	*ret_pidfd = TAKE_FD(fd);
	return 0;
}
