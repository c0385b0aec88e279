#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/pidfile.h"
#include "hypervisor/qemu_process.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"

#define QMP_READY_TIMEOUT_MS 30000 /* preallocation of much memory comes before the first QMP greeting */
#define QMP_AGAIN_TIMEOUT_MS 5000  /* one that listened before answers at once, or is frozen */
#define QMP_RETRY_MS 1000
#define QMP_LOST_GRACE_MS 500 /* a dying QEMU closes its sockets before its pidfd says so */
#define LOG_TAIL_BYTES 1500
#define LOG_TAIL_LINES 12

enum session { SESSION_MAIN, SESSION_OOB, SESSION_COUNT };
static const char *const session_file[] = {"qmp.sock", "oob.sock"};
static const char *const run_files[] = {"pid", "qmp.sock", "oob.sock", "console.sock", "agent.sock"};

struct session_slot {
	struct qemu_process *owner;
	struct qmp *qmp; /* NULL: none, or its close callback has come */
	bool ready;
};

struct qemu_process {
	uv_loop_t *loop;
	struct qemu_process_callbacks cb; /* all NULL once freed by its owner */
	void *data;
	char *run_dir, *log_path;
	off_t log_start;
	pid_t pid;
	int pidfd;
	bool is_child, exited, released, told_ready, trouble_told;
	struct session_slot sessions[SESSION_COUNT];
	uv_poll_t poll;
	uv_timer_t retry;
	int open_handles; /* poll, retry and living sessions: the last one frees */
	uint32_t qmp_timeout_ms;
	struct err trouble;
};

static void process_unref(struct qemu_process *qp)
{
	if (--qp->open_handles > 0)
		return;
	if (qp->pidfd >= 0)
		close(qp->pidfd);
	free(qp->run_dir);
	free(qp->log_path);
	free(qp);
}

static void on_handle_closed(uv_handle_t *handle)
{
	process_unref(handle->data);
}

/* ---- QMP sessions ---- */

static void sessions_open(struct qemu_process *qp);

static void on_retry(uv_timer_t *timer)
{
	struct qemu_process *qp = timer->data;

	if (qp->exited || qp->released)
		return;
	if (!qp->trouble_told) {
		qp->trouble_told = true;
		if (qp->cb.on_error)
			qp->cb.on_error(qp->data, qp, &qp->trouble);
		if (qp->released)
			return;
	}
	sessions_open(qp);
}

static void on_qmp_ready(void *data, struct qmp *qmp)
{
	struct session_slot *slot = data;
	struct qemu_process *qp = slot->owner;

	slot->ready = true;
	if (!qp->sessions[SESSION_MAIN].ready || !qp->sessions[SESSION_OOB].ready)
		return;
	qp->trouble_told = false;
	qp->qmp_timeout_ms = QMP_AGAIN_TIMEOUT_MS;
	if (qp->cb.on_ready)
		qp->cb.on_ready(qp->data, qp);
}

static void on_qmp_event(void *data, struct qmp *qmp, const char *event, json_t *event_data)
{
	struct session_slot *slot = data;
	struct qemu_process *qp = slot->owner;

	/* Each session gets each event: the in-band one keeps them in order with the replies. */
	if (slot == &qp->sessions[SESSION_MAIN] && qp->cb.on_event)
		qp->cb.on_event(qp->data, qp, event, event_data);
}

static void on_qmp_closed(void *data, int rc, const struct err *err)
{
	struct session_slot *slot = data;
	struct qemu_process *qp = slot->owner;

	slot->qmp = NULL;
	slot->ready = false;
	if (!qp->released && !qp->exited) {
		if (rc < 0)
			qp->trouble = *err;
		uv_timer_start(&qp->retry, on_retry, qp->trouble_told ? QMP_RETRY_MS : QMP_LOST_GRACE_MS, 0);
	}
	process_unref(qp);
}

static void sessions_open(struct qemu_process *qp)
{
	static const struct qmp_callbacks callbacks = {.on_ready = on_qmp_ready, .on_event = on_qmp_event, .on_close = on_qmp_closed};
	char path[PATH_MAX];

	for (int i = 0; i < SESSION_COUNT; i++) {
		struct session_slot *slot = &qp->sessions[i];

		if (slot->qmp)
			continue;
		snprintf(path, sizeof(path), "%s/%s", qp->run_dir, session_file[i]);
		if (qmp_connect(qp->loop, path, qp->qmp_timeout_ms, i == SESSION_OOB, &callbacks, slot, &slot->qmp, &qp->trouble) < 0)
			uv_timer_start(&qp->retry, on_retry, QMP_RETRY_MS, 0);
		else
			qp->open_handles++;
	}
}

static void sessions_close(struct qemu_process *qp)
{
	for (int i = 0; i < SESSION_COUNT; i++)
		if (qp->sessions[i].qmp)
			qmp_close(qp->sessions[i].qmp);
}

/* ---- the end of the process ---- */

static void log_tail_read(const struct qemu_process *qp, char *ret, size_t size)
{
	_cleanup_close_ int fd = open(qp->log_path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	off_t from;
	ssize_t n;
	char *cut;

	ret[0] = '\0';
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	from = st.st_size - (off_t)(size - 1);
	if (from < qp->log_start)
		from = qp->log_start;
	n = st.st_size > from ? pread(fd, ret, size - 1, from) : 0;
	ret[n > 0 ? n : 0] = '\0';
	if (from > qp->log_start && (cut = strchr(ret, '\n')))
		memmove(ret, cut + 1, strlen(cut + 1) + 1);
	while ((n = (ssize_t)strlen(ret)) > 0 && ret[n - 1] == '\n')
		ret[n - 1] = '\0';
	for (int lines = 1; (cut = strrchr(ret, '\n')); lines++) {
		if (lines == LOG_TAIL_LINES) {
			memmove(ret, cut + 1, strlen(cut + 1) + 1);
			break;
		}
		*cut = '\1'; /* marks a line end that has been counted */
	}
	for (cut = ret; *cut; cut++)
		if (*cut == '\1')
			*cut = '\n';
}

static int reap(struct qemu_process *qp)
{
	int status = -1;

	if (qp->is_child && waitpid(qp->pid, &status, WNOHANG) != qp->pid)
		status = -1;
	return status;
}

static void on_pidfd(uv_poll_t *poll, int status, int events)
{
	struct qemu_process *qp = poll->data;
	char tail[LOG_TAIL_BYTES];
	int exit_status;

	qp->exited = true;
	exit_status = reap(qp);
	uv_poll_stop(poll);
	uv_timer_stop(&qp->retry);
	sessions_close(qp);
	log_tail_read(qp, tail, sizeof(tail));
	if (qp->cb.on_exit)
		qp->cb.on_exit(qp->data, qp, exit_status, tail);
}

/* ---- start and adopt ---- */

static void process_supervise(struct qemu_process *qp)
{
	/* uv_poll_init fails only for bad or doubly watched descriptors: a bug. */
	int rc = uv_poll_init(qp->loop, &qp->poll, qp->pidfd);

	if (rc < 0)
		abort();
	qp->poll.data = qp;
	uv_poll_start(&qp->poll, UV_READABLE, on_pidfd);
	uv_timer_init(qp->loop, &qp->retry);
	qp->retry.data = qp;
	qp->open_handles = 2;
	sessions_open(qp);
}

static struct qemu_process *process_new(uv_loop_t *loop, const char *run_dir, const char *log_path, const struct qemu_process_callbacks *cb,
					void *data)
{
	struct qemu_process *qp = mem_alloc(sizeof(*qp));

	qp->loop = loop;
	qp->run_dir = str_dup(run_dir);
	qp->log_path = str_dup(log_path);
	qp->cb = *cb;
	qp->data = data;
	qp->pidfd = -1;
	qp->qmp_timeout_ms = QMP_READY_TIMEOUT_MS;
	for (int i = 0; i < SESSION_COUNT; i++)
		qp->sessions[i].owner = qp;
	return qp;
}

static void process_discard(struct qemu_process *qp)
{
	qp->open_handles = 1;
	process_unref(qp);
}

/* posix_spawn waits for the exec: a missing binary is known at once. The child gets its own session (it survives the agent's
 * terminal, signals and death), no descriptor but its log, and default signal handling. PR_SET_PDEATHSIG is never set. */
static int spawn(char *const *argv, int log_fd, pid_t *ret)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int rc;

	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, log_fd, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&files, log_fd, STDERR_FILENO);
	posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	rc = posix_spawnp(ret, argv[0], &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return -rc;
}

static int log_open_for(const char *path, char *const *argv, off_t *ret_start)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

	if (fd < 0)
		return -errno;
	for (int i = 0; argv[i]; i++)
		dprintf(fd, "%s%s", i ? " " : "starting ", argv[i]);
	dprintf(fd, "\n");
	*ret_start = lseek(fd, 0, SEEK_END);
	return fd;
}

/* Leftovers of an earlier QEMU would be connected to before the new one listens. */
static void run_files_remove(const char *run_dir)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(run_files); i++) {
		snprintf(path, sizeof(path), "%s/%s", run_dir, run_files[i]);
		unlink(path);
	}
}

static bool has_died(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

int qemu_process_start(uv_loop_t *loop, char *const *argv, const char *run_dir, const char *log_path,
		       const struct qemu_process_callbacks *cb, void *data, struct qemu_process **ret, struct err *err)
{
	_cleanup_close_ int log_fd = -1;
	struct qemu_process *qp;
	char path[PATH_MAX];
	off_t log_start = 0;
	int rc;

	log_fd = log_open_for(log_path, argv, &log_start);
	if (log_fd < 0)
		return err_set(err, -log_fd, "log %s: %s", log_path, strerror(-log_fd));
	run_files_remove(run_dir);
	qp = process_new(loop, run_dir, log_path, cb, data);
	qp->log_start = log_start;
	qp->is_child = true;
	rc = spawn(argv, log_fd, &qp->pid);
	if (rc < 0) {
		err_set(err, -rc, "%s: cannot be started: %s", argv[0], strerror(-rc));
		process_discard(qp);
		return rc;
	}
	qp->pidfd = (int)syscall(SYS_pidfd_open, qp->pid, 0);
	rc = qp->pidfd < 0 ? err_set(err, errno, "pidfd of process %d: %s", (int)qp->pid, strerror(errno)) : 0;
	snprintf(path, sizeof(path), "%s/pid", run_dir);
	if (rc == 0)
		rc = pidfile_write(path, qp->pid, err);
	/* A QEMU that the next agent cannot find must not be. One that has died already is told by on_exit instead. */
	if (rc < 0 && qp->pidfd >= 0 && has_died(qp->pid))
		rc = 0;
	if (rc < 0) {
		kill(qp->pid, SIGKILL);
		waitpid(qp->pid, NULL, 0);
		process_discard(qp);
		return rc;
	}
	process_supervise(qp);
	*ret = qp;
	return 0;
}

int qemu_process_adopt(uv_loop_t *loop, const char *run_dir, const char *log_path, const struct qemu_process_callbacks *cb, void *data,
		       struct qemu_process **ret, struct err *err)
{
	struct qemu_process *qp;
	char path[PATH_MAX];
	int pidfd, rc;
	struct stat st;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/pid", run_dir);
	rc = pidfile_find(path, &pid, &pidfd, err);
	if (rc < 0)
		return rc;
	qp = process_new(loop, run_dir, log_path, cb, data);
	qp->pid = pid;
	qp->pidfd = pidfd;
	qp->qmp_timeout_ms = QMP_AGAIN_TIMEOUT_MS;
	/* Only what it says from now on is its last words, unless it says nothing. */
	qp->log_start = stat(log_path, &st) == 0 && st.st_size > LOG_TAIL_BYTES ? st.st_size - LOG_TAIL_BYTES : 0;
	process_supervise(qp);
	*ret = qp;
	return 0;
}

struct qmp *qemu_process_qmp(struct qemu_process *qp)
{
	return qp->sessions[SESSION_MAIN].ready ? qp->sessions[SESSION_MAIN].qmp : NULL;
}

struct qmp *qemu_process_qmp_oob(struct qemu_process *qp)
{
	return qp->sessions[SESSION_OOB].ready ? qp->sessions[SESSION_OOB].qmp : NULL;
}

pid_t qemu_process_pid(const struct qemu_process *qp)
{
	return qp->pid;
}

int qemu_process_pidfd(const struct qemu_process *qp)
{
	return qp->pidfd;
}

bool qemu_process_alive(const struct qemu_process *qp)
{
	return !qp->exited;
}

int qemu_process_kill(struct qemu_process *qp, int signal)
{
	if (qp->exited)
		return -ESRCH;
	return syscall(SYS_pidfd_send_signal, qp->pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

void qemu_process_free(struct qemu_process *qp)
{
	if (!qp)
		return;
	qp->released = true;
	qp->cb = (struct qemu_process_callbacks){0};
	if (qp->exited)
		run_files_remove(qp->run_dir);
	sessions_close(qp);
	uv_close((uv_handle_t *)&qp->poll, on_handle_closed);
	uv_close((uv_handle_t *)&qp->retry, on_handle_closed);
}
