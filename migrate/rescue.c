#include "migrate/rescue.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "migrate/engine_internal.h"
#include "migrate/qemu_channel.h"

#define RESCUE_TICK_MS 20
#define RESCUE_PATIENCE_MS 400   /* QMP that says nothing for so long is frozen */
#define RESCUE_DEADLINE_MS 30000
#define RESCUE_FDS_MAX 4096
#define RESCUE_CUTS_MAX 2

/* One question is under way at a time; what is asked next follows from the answer. */
enum rescue_question { ASK_NOTHING, ASK_MIGRATION, ASK_CANCEL, ASK_STATUS, ASK_CONT, ASK_CLOSEFD };

struct rescue {
	uv_loop_t *loop;
	uv_timer_t tick;
	struct qemu_process *qemu; /* NULL: called off */
	bool keep_paused, closing;
	enum rescue_question asked;
	uint64_t asked_ms, deadline_ms;
	bool migration_over;
	int cuts; /* attempts to cut the stream: by yank, then by its socket */
	int open;                    /* tick, and a QMP command under way */
	rescue_cb cb;
	void *data;
	char status[32];
	struct err trouble;
};

static void rescue_unref(struct rescue *r)
{
	if (--r->open == 0)
		free(r);
}

static void on_tick_closed(uv_handle_t *handle)
{
	rescue_unref(handle->data);
}

static void rescue_end(struct rescue *r, int rc, const struct err *err)
{
	rescue_cb cb = r->cb;
	struct err none = {0};

	if (r->closing)
		return;
	r->closing = true;
	uv_close((uv_handle_t *)&r->tick, on_tick_closed);
	if (cb)
		cb(r->data, rc, err ? err : &none);
}

void rescue_cancel(struct rescue *r)
{
	if (!r)
		return;
	r->cb = NULL;
	r->qemu = NULL;
	rescue_end(r, 0, NULL);
}

/* ---- cutting the stream ---- */

static bool is_our_socket(int fd)
{
	struct sockaddr_un address = {0};
	socklen_t len = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &len) < 0 || address.sun_family != AF_UNIX || len <= sizeof(sa_family_t) + 1)
		return false;
	return !address.sun_path[0] && !strncmp(address.sun_path + 1, QEMU_CHANNEL_NAME, strlen(QEMU_CHANNEL_NAME));
}

/* shutdown() works on the connection, whoever holds it: QEMU's stream ends as if the peer had gone. */
static int cut_by_pidfd(struct qemu_process *qemu)
{
	int pidfd = qemu_process_pidfd(qemu), found = -ENOENT;
	char path[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)qemu_process_pid(qemu));
	if (!(dir = opendir(path)))
		return -errno;
	for (int n = 0; n < RESCUE_FDS_MAX && (entry = readdir(dir)); n++) {
		_cleanup_close_ int fd = -1;

		if (entry->d_name[0] == '.')
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
		if (fd >= 0 && is_our_socket(fd) && shutdown(fd, SHUT_RDWR) == 0)
			found = 0;
	}
	closedir(dir);
	return found;
}

static void cut_stream(struct rescue *r)
{
	struct qmp *oob = qemu_process_qmp_oob(r->qemu);
	int rc = -ENOTCONN;

	r->asked_ms = uv_now(r->loop);
	if (oob && r->cuts++ == 0)
		rc = qmp_execute_oob(oob, "yank", json_pack("{s:[{s:s}]}", "instances", "type", "migration"), NULL, NULL);
	if (rc < 0) {
		r->cuts = RESCUE_CUTS_MAX;
		rc = cut_by_pidfd(r->qemu);
	}
	if (rc < 0)
		err_set(&r->trouble, -rc, "the stalled migration stream of QEMU (pid %d) cannot be cut: %s", (int)qemu_process_pid(r->qemu), strerror(-rc));
}

/* ---- questions and answers ---- */

static void on_answer(void *data, int rc, json_t *ret, const struct err *err);

static bool ask(struct rescue *r, enum rescue_question question, const char *command, json_t *args)
{
	struct qmp *qmp = qemu_process_qmp(r->qemu);

	if (!qmp || qmp_execute(qmp, command, args, on_answer, r) < 0) {
		if (!qmp)
			json_decref(args);
		return false;
	}
	r->asked = question;
	r->asked_ms = uv_now(r->loop);
	r->open++;
	return true;
}

static void take_migration(struct rescue *r, json_t *ret)
{
	const char *status = json_string_value(json_object_get(ret, "status"));

	r->migration_over = !status || !strcmp(status, "none") || !strcmp(status, "completed") || !strcmp(status, "cancelled") || !strcmp(status, "failed");
	if (!r->migration_over && strcmp(status, "cancelling") != 0)
		ask(r, ASK_CANCEL, "migrate_cancel", NULL);
}

static void take_status(struct rescue *r, json_t *ret)
{
	const char *status = json_string_value(json_object_get(ret, "status"));

	snprintf(r->status, sizeof(r->status), "%s", status ? status : "unknown");
	if (!strcmp(r->status, "finish-migrate"))
		return; /* on its way: asked again */
	/* A paused guest that was running was stopped by us or by the migration. */
	if (!r->keep_paused && (!strcmp(r->status, "postmigrate") || !strcmp(r->status, "paused"))) {
		ask(r, ASK_CONT, "cont", NULL);
		return;
	}
	if (!ask(r, ASK_CLOSEFD, "closefd", json_pack("{s:s}", "fdname", ENGINE_FD_KEEP)))
		rescue_end(r, 0, NULL);
}

static void on_answer(void *data, int rc, json_t *ret, const struct err *err)
{
	struct rescue *r = data;
	enum rescue_question asked = r->asked;

	r->asked = ASK_NOTHING;
	if (r->closing || !r->qemu) {
		rescue_unref(r);
		return;
	}
	if (rc < 0)
		r->trouble = *err;
	if (asked == ASK_CLOSEFD)
		rescue_end(r, 0, NULL); /* it may be closed already: that is no failure */
	else if (rc == 0 && asked == ASK_MIGRATION)
		take_migration(r, ret);
	else if (rc == 0 && asked == ASK_STATUS)
		take_status(r, ret);
	rescue_unref(r);
}

static void on_tick(uv_timer_t *tick)
{
	struct rescue *r = tick->data;
	uint64_t now = uv_now(r->loop);
	struct err err = {0};
	int rc;

	if (!qemu_process_alive(r->qemu)) {
		rc = err_set(&err, ESRCH, "QEMU of the source has ended");
		rescue_end(r, rc, &err);
	} else if (now >= r->deadline_ms) {
		rc = err_set(&err, ETIMEDOUT, "QEMU of the source did not go on within %d s (last state: %s)%s%s", RESCUE_DEADLINE_MS / 1000,
			     *r->status ? r->status : "unknown", *r->trouble.text ? ": " : "", r->trouble.text);
		rescue_end(r, rc, &err);
	} else if (r->asked != ASK_NOTHING || !qemu_process_qmp(r->qemu)) {
		if (now - r->asked_ms >= RESCUE_PATIENCE_MS && r->cuts < RESCUE_CUTS_MAX)
			cut_stream(r);
	} else if (!r->migration_over) {
		ask(r, ASK_MIGRATION, "query-migrate", NULL);
	} else {
		ask(r, ASK_STATUS, "query-status", NULL);
	}
}

struct rescue *rescue_start(uv_loop_t *loop, struct qemu_process *qemu, bool keep_paused, rescue_cb cb, void *data)
{
	struct rescue *r = mem_alloc(sizeof(*r));

	r->loop = loop;
	r->qemu = qemu;
	r->keep_paused = keep_paused;
	r->cb = cb;
	r->data = data;
	uv_update_time(loop);
	r->asked_ms = uv_now(loop);
	r->deadline_ms = r->asked_ms + RESCUE_DEADLINE_MS;
	uv_timer_init(loop, &r->tick);
	r->tick.data = r;
	r->open = 1;
	uv_timer_start(&r->tick, on_tick, 0, RESCUE_TICK_MS);
	return r;
}

int engine_rescue_source(uv_loop_t *loop, struct qemu_process *qemu, void (*cb)(void *data, int rc, const struct err *err), void *data, struct err *err)
{
	if (!qemu_process_alive(qemu))
		return err_set(err, ESRCH, "QEMU of the source has ended");
	rescue_start(loop, qemu, false, cb, data);
	return 0;
}
