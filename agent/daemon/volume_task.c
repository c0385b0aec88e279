#include "agent/daemon/volume_task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/paths.h"
#include "proto/pb.h"

#define NOTE_MADE "made"

struct volume_task {
	struct volume_task *next;
	struct agent *agent;
	Gantry__Volume *volume;
	bool busy, done;
	int rc;
	struct err err;
};

static bool volume_task__same(const Gantry__Volume *x, const Gantry__Volume *y)
{
	return x->job_id == y->job_id && strcmp(x->pool, y->pool) == 0 && strcmp(x->name, y->name) == 0 &&
	       x->state == y->state;
}

static char *volume_task__note(const Gantry__Volume *v)
{
	return str_printf(PATH_AGENT_STATE "/volume-%" PRIu64, v->job_id);
}

static void volume_task__done(void *data, int rc, const struct err *err)
{
	struct volume_task *t = data;

	t->busy = false;
	t->done = true;
	t->rc = rc;
	if (rc < 0 && err != NULL)
		t->err = *err;
	if (rc < 0)
		log_error("task %" PRIu64 ": volume %s/%s: %s", t->volume->job_id, t->volume->pool, t->volume->name,
			  t->err.text);
	agent_wake(t->agent);
}

/* Said again after a restart of the agent, instead of being made again. */
static void volume_task__made(void *data, int rc, const struct err *err)
{
	struct volume_task *t = data;
	_cleanup_free_ char *note = volume_task__note(t->volume);
	struct err note_err;

	if (rc == 0 && atomic_file_write(note, NOTE_MADE, strlen(NOTE_MADE), 0600, &note_err) < 0)
		log_warning("%s", note_err.text);
	volume_task__done(t, rc, err);
}

static void volume_task__create(struct volume_task *t)
{
	struct err err;
	int rc = storage_volume_create(t->agent->storage, t->volume, volume_task__made, t, &err);

	if (rc < 0)
		volume_task__done(t, rc, &err);
}

static bool volume_task__was_made(const struct volume_task *t)
{
	_cleanup_free_ char *note = volume_task__note(t->volume);
	struct buf text = {0};
	bool made = atomic_file_read(note, sizeof(NOTE_MADE), &text, NULL) == 0 && strcmp(buf_str(&text), NOTE_MADE) == 0;

	buf_free(&text);
	return made;
}

static void volume_task__begin(struct volume_task *t)
{
	struct err err;
	int rc = 0;

	t->busy = true;
	/* A file of that name that is there already is never touched: it may be somebody's, as well as half of what an agent that was
	 * killed had begun. The creation refuses it by name. */
	if (t->volume->state == GANTRY__VOLUME_STATE__VOLUME_STATE_DELETING)
		rc = storage_volume_delete(t->agent->storage, t->volume, volume_task__done, t, &err);
	else if (volume_task__was_made(t))
		volume_task__done(t, 0, NULL);
	else
		volume_task__create(t);
	if (rc < 0)
		volume_task__done(t, rc, &err);
}

static bool volume_task__wanted(const struct agent *a, const struct volume_task *t)
{
	for (size_t i = 0; i < a->goals->n_volumes; i++)
		if (volume_task__same(a->goals->volumes[i]->volume, t->volume))
			return true;
	return false;
}

static void volume_task__forget(struct agent *a)
{
	for (struct volume_task **p = &a->volumes; *p != NULL;) {
		struct volume_task *t = *p;
		if (t->busy || volume_task__wanted(a, t)) {
			p = &t->next;
			continue;
		}
		_cleanup_free_ char *note = volume_task__note(t->volume);
		unlink(note);
		*p = t->next;
		gantry__volume__free_unpacked(t->volume, NULL);
		free(t);
	}
}

void volume_task_update(struct agent *a)
{
	if (a->goals == NULL)
		return;
	volume_task__forget(a);
	for (size_t i = 0; i < a->goals->n_volumes; i++) {
		const Gantry__Volume *v = a->goals->volumes[i]->volume;
		struct volume_task *t;
		for (t = a->volumes; t != NULL; t = t->next)
			if (volume_task__same(t->volume, v))
				break;
		if (t != NULL)
			continue;
		t = mem_alloc(sizeof(*t));
		t->agent = a;
		t->volume = pb_clone(v);
		t->next = a->volumes;
		a->volumes = t;
		volume_task__begin(t);
	}
}

void volume_task_report(const struct agent *a, Gantry__AgentReport *report)
{
	for (const struct volume_task *t = a->volumes; t != NULL; t = t->next) {
		if (!t->done)
			continue;
		Gantry__VolumeReport *r = PB_NEW(Gantry__VolumeReport, gantry__volume_report__init);
		pb_set_string(&r->pool, t->volume->pool);
		pb_set_string(&r->name, t->volume->name);
		r->job_id = t->volume->job_id;
		r->ok = t->rc == 0;
		r->size_bytes = t->volume->size_bytes;
		if (t->rc < 0)
			pb_set_string(&r->reason, t->err.text);
		PB_APPEND(report, volumes, r);
	}
}
