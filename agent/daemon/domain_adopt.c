#include "agent/daemon/domain_adopt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/daemon/console.h"
#include "agent/daemon/domain_end.h"
#include "agent/daemon/domain_io.h"
#include "agent/daemon/domain_note.h"
#include "agent/daemon/domain_run.h"
#include "agent/daemon/ended_note.h"
#include "hypervisor/qemu_args.h"
#include "hypervisor/qmp.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/paths.h"

#define CMDLINE_BYTES_MAX (256u << 10)
#define STRAY_DIES_MS 1000

/* Whether the process of this pidfd was started for this run folder: its arguments name the sockets there. */
static bool domain_adopt__is_for(pid_t pid, const char *run_dir)
{
	_cleanup_free_ char *path = str_printf("/proc/%d/cmdline", (int)pid),
			    *socket = str_printf("%s/qmp.sock", run_dir);
	struct buf args = {0};
	bool found = false;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;

	while (fd >= 0 && n > 0 && args.len < CMDLINE_BYTES_MAX) {
		n = read(fd, buf_reserve(&args, 4096), 4096);
		args.len += n > 0 ? (size_t)n : 0;
	}
	if (args.len > 0)
		found = memmem(args.data, args.len, socket, strlen(socket)) != NULL;
	buf_free(&args);
	return found;
}

/* An agent that was killed between the start of a QEMU and its pid file leaves one that nobody can find by its file. It
 * has never run a guest, but it holds taps and images. Blocks for STRAY_DIES_MS at most, at the agent's start. */
static void domain_adopt__kill_strays(const struct domain *d, const char *run_dir)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;

	while (proc != NULL && (e = readdir(proc)) != NULL) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
		if (pid <= 1)
			continue;
		_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (pidfd < 0 || !domain_adopt__is_for(pid, run_dir))
			continue;
		log_warning("domain %s: process %d was started for it and never known: killed", d->name, (int)pid);
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, STRAY_DIES_MS);
	}
	if (proc != NULL)
		closedir(proc);
}

static void domain_adopt__gone(struct domain *d, enum note_stage stage)
{
	static const char *const texts[] = {
	    [END_GONE] = "the copy ended while the agent was away",
	    [END_RETRY] = "the start was cut short by the end of the agent",
	    [END_CRASHED] = "QEMU ended while the agent was away",
	};
	enum domain_end end = domain_fate_unseen(stage);

	/* On the way through the ordinary cleanup, as if it had just ended. */
	d->actual = ACTUAL_STOPPING;
	domain_end_begin(d, end, texts[end]);
}

static void domain_adopt__one(struct agent *a, const char *uuid, unsigned *found)
{
	_cleanup_free_ char *run_dir = agent_run_dir(uuid), *log_path = NULL;
	struct domain_note note = {0};
	struct domain *d;
	struct err err;
	int rc = domain_note_read(uuid, &note, &err);

	if (rc == 0)
		rc = agent_get_domain(a, uuid, note.spec->name, &d, &err);
	if (rc < 0) {
		log_error("a domain's folder cannot be used: %s; its QEMU, if there is one, is left alone", err.text);
		domain_note_free(&note);
		return;
	}
	d->spec = TAKE_PTR(note.spec);
	d->generation = note.generation;
	d->ha = note.ha;
	d->left = note.left;
	d->job_id = note.job_id;
	d->running_since_ms = note.running_since_ms;
	d->taps = TAKE_PTR(note.taps);
	d->copy = note.stage == NOTE_INCOMING || note.stage == NOTE_COMPLETE;
	d->adopted = true;
	d->cut_short = note.stage == NOTE_STARTING;
	log_path = agent_log_path(d->name);
	d->actual = domain_fate_adopted(note.stage);
	rc = qemu_process_adopt(a->loop, run_dir, log_path, &domain_run_callbacks, d, &d->qemu, &err);
	if (rc < 0) {
		log_notice("domain %s: no QEMU is left of generation %" PRIu64 ": %s", d->name, d->generation,
			   err.text);
		d->qemu = NULL;
		domain_adopt__kill_strays(d, run_dir);
		domain_adopt__gone(d, note.stage);
		return;
	}
	(*found)++;
	log_notice("domain %s: QEMU %d found again, generation %" PRIu64, d->name, (int)qemu_process_pid(d->qemu),
		   d->generation);
}

unsigned domain_adopt_all(struct agent *a)
{
	DIR *dir = opendir(PATH_DOMAINS);
	unsigned found = 0;
	struct dirent *e;

	ended_note_load_all(a);
	if (dir == NULL)
		return 0;
	while ((e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		if (domain_note_uuid_valid(e->d_name))
			domain_adopt__one(a, e->d_name, &found);
		else
			log_warning(PATH_DOMAINS "/%s is no domain's folder", e->d_name);
	}
	closedir(dir);
	return found;
}

static void domain_adopt__status_is(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;
	const char *status = rc == 0 ? json_string_value(json_object_get(ret, "status")) : NULL;
	bool running = status != NULL && strcmp(status, "running") == 0;

	d->pending--;
	agent_wake(d->agent);
	if (d->actual == ACTUAL_STOPPING || d->qemu == NULL || d->qemu_dead)
		return;
	if (status == NULL) {
		domain_end_begin(d, END_CRASHED, err->text);
		return;
	}
	log_info("domain %s: QEMU says '%s'", d->name, status);
	if (d->actual == ACTUAL_OUTGOING_HELD)
		d->actual = running ? ACTUAL_OUTGOING : ACTUAL_OUTGOING_HELD;
	else if (running)
		d->actual = ACTUAL_RUNNING;
	else if (strcmp(status, "watchdog") == 0)
		domain_end_hung(d, DOMAIN_END_WATCHDOG_FIRED);
	else if (d->cut_short)
		domain_end_begin(d, END_RETRY, "the start was cut short by the end of the agent");
	else
		d->actual = ACTUAL_PAUSED;
	if (strcmp(status, "io-error") == 0)
		domain_io_error_found(d);
}

void domain_adopt_ready(struct domain *d)
{
	struct qmp *qmp = qemu_process_qmp(d->qemu);

	if (d->actual == ACTUAL_STOPPING)
		return;
	console_attach(d, true);
	if (d->actual == ACTUAL_INCOMING || d->actual == ACTUAL_COMPLETE)
		return;
	d->pending++;
	if (qmp_execute(qmp, "query-status", NULL, domain_adopt__status_is, d) < 0) {
		d->pending--;
		domain_end_begin(d, END_CRASHED, "QEMU does not answer");
	}
}
