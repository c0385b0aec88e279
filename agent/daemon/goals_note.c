#include "agent/daemon/goals_note.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/core/goals_order.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/paths.h"

#define GOALS_NOTE PATH_AGENT_STATE "/goals"
#define QUORUM_NOTE PATH_RUN "/agent-quorum"

#define NOTE_BYTES 160

/* One write at a time; `again` when something newer came meanwhile. */
struct goals_writer {
	uv_work_t work;
	struct agent *agent;
	char text[NOTE_BYTES];
	int rc;
	struct err err;
	bool busy, again;
};

int goals_note_load(struct agent *a, struct err *err)
{
	struct buf text = {0};
	char cluster[64];
	uint64_t epoch, index;
	int rc;

	rc = path_make_dirs(PATH_AGENT_STATE, 0700, err);
	if (rc < 0)
		return rc;
	rc = atomic_file_read(GOALS_NOTE, NOTE_BYTES, &text, err);
	if (rc == -ENOENT)
		return 0;
	if (rc == 0) {
		if (sscanf(buf_str(&text), "%63s %" SCNu64 " %" SCNu64, cluster, &epoch, &index) == 3) {
			agent_set_text(&a->known_cluster, cluster);
			a->known_epoch = epoch;
			a->known_index = index;
		} else {
			rc = err_set(err, EINVAL,
				     GOALS_NOTE ": is damaged; remove it if no other clusterd than the right one "
						"can reach this host");
		}
	}
	buf_free(&text);
	return rc;
}

int goals_note_check(const struct agent *a, const Gantry__AgentGoals *goals, struct err *err)
{
	struct goals_order known = {a->known_cluster, a->known_epoch, a->known_index};

	if (!goals_order_older(&known, goals))
		return 0;
	return err_set(err, ESTALE,
		       "goals of epoch %" PRIu64 " index %" PRIu64 " are older than those obeyed here (epoch %" PRIu64
		       " index %" PRIu64 "): this clusterd is behind",
		       goals->epoch, goals->index, a->known_epoch, a->known_index);
}

static void goals_note__write(uv_work_t *work)
{
	struct goals_writer *w = work->data;

	w->rc = atomic_file_write(GOALS_NOTE, w->text, strlen(w->text), 0600, &w->err);
}

static void goals_note__start(struct goals_writer *w);

static void goals_note__written(uv_work_t *work, int status)
{
	struct goals_writer *w = work->data;

	w->busy = false;
	if (w->rc < 0)
		log_warning("the newest goals could not be noted: %s", w->err.text);
	if (w->again)
		goals_note__start(w);
}

static void goals_note__start(struct goals_writer *w)
{
	struct agent *a = w->agent;

	w->again = w->busy;
	if (w->busy)
		return;
	w->busy = true;
	snprintf(w->text, sizeof(w->text), "%s %" PRIu64 " %" PRIu64 "\n", a->known_cluster, a->known_epoch,
		 a->known_index);
	uv_queue_work(a->loop, &w->work, goals_note__write, goals_note__written);
}

/* The write does not hold the goals up: it guards against a clusterd that fell behind, which the log already
 * forbids, and a commit of a migration must not wait for this disk. */
void goals_note_seen(struct agent *a, const Gantry__AgentGoals *goals)
{
	bool same = a->known_cluster != NULL && strcmp(a->known_cluster, goals->cluster_uuid) == 0 &&
		    a->known_epoch == goals->epoch && a->known_index == goals->index;

	if (same)
		return;
	agent_set_text(&a->known_cluster, goals->cluster_uuid);
	a->known_epoch = goals->epoch;
	a->known_index = goals->index;
	if (a->goals_writer == NULL) {
		a->goals_writer = mem_alloc(sizeof(*a->goals_writer));
		a->goals_writer->agent = a;
		a->goals_writer->work.data = a->goals_writer;
	}
	goals_note__start(a->goals_writer);
}

uint64_t goals_note_boot_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* /run is empty after a boot, and the boot clock never goes back within one. A time in the future is no note of ours.
 */
uint64_t goals_note_quorum_load(uint64_t now_boot_ms)
{
	struct buf text = {0};
	uint64_t then = now_boot_ms;

	if (atomic_file_read(QUORUM_NOTE, 64, &text, NULL) == 0 && text.len > 0) {
		uint64_t noted = strtoull(buf_str(&text), NULL, 10);
		if (noted > 0 && noted < now_boot_ms)
			then = noted;
	}
	buf_free(&text);
	return then;
}

/* In place and of fixed length: a torn write is not possible within one page of a tmpfs. */
void goals_note_quorum_store(uint64_t boot_ms)
{
	_cleanup_close_ int fd = open(QUORUM_NOTE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char text[32];
	int n = snprintf(text, sizeof(text), "%020" PRIu64 "\n", boot_ms);

	if (fd < 0 || pwrite(fd, text, (size_t)n, 0) != n)
		log_warning("%s: the time of the last quorum could not be noted: %s", QUORUM_NOTE, strerror(errno));
}
