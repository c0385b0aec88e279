#include "agent/daemon/ended_note.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/domain_note.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/paths.h"

#define NOTE_BYTES_MAX (64u << 10)

int ended_note_write(const struct domain *d, uint64_t generation, Gantry__DomainState state, const char *reason, struct err *err)
{
	_cleanup_free_ char *path = str_printf(PATH_ENDED "/%s", d->uuid), *text = NULL;
	json_t *note = json_pack("{s:s, s:I, s:i, s:s, s:b, s:b, s:b}", "name", d->name, "generation", (json_int_t)generation, "state", (int)state,
				 "reason", reason, "guest_shutdown", d->guest_shutdown, "guest_reboot", d->guest_reboot, "hung",
				 d->hung);

	text = note != NULL ? json_dumps(note, JSON_COMPACT) : NULL;
	json_decref(note);
	if (text == NULL)
		return err_set(err, EINVAL, "domain '%s': the note of its end cannot be put into JSON", d->name);
	return atomic_file_write(path, text, strlen(text), 0600, err);
}

static int ended_note__read(struct agent *a, const char *uuid, struct err *err)
{
	_cleanup_free_ char *path = str_printf(PATH_ENDED "/%s", uuid);
	struct buf text = {0};
	const char *name, *reason;
	json_int_t generation;
	int state, shutdown, reboot, hung = 0, rc;
	struct domain *d;
	json_error_t at;

	rc = atomic_file_read(path, NOTE_BYTES_MAX, &text, err);
	if (rc < 0)
		return rc;
	json_t *json = json_loadb((char *)text.data, text.len, 0, &at);
	buf_free(&text);
	if (json == NULL ||
	    json_unpack_ex(json, &at, 0, "{s:s, s:I, s:i, s:s, s:b, s:b, s?b}", "name", &name, "generation", &generation, "state", &state,
			   "reason", &reason, "guest_shutdown", &shutdown, "guest_reboot", &reboot, "hung", &hung) != 0) {
		json_decref(json);
		return err_set(err, EINVAL, "%s: %s", path, at.text);
	}
	rc = agent_get_domain(a, uuid, name, &d, err);
	if (rc == 0) {
		d->ended_generation = (uint64_t)generation;
		d->ended_state = (Gantry__DomainState)state;
		d->ended_guest_shutdown = shutdown;
		d->ended_guest_reboot = reboot;
		d->ended_hung = hung;
		agent_set_text(&d->ended_reason, reason);
	}
	json_decref(json);
	return rc;
}

void ended_note_load_all(struct agent *a)
{
	DIR *dir = opendir(PATH_ENDED);
	struct dirent *e;
	struct err err;

	while (dir != NULL && (e = readdir(dir)) != NULL)
		if (domain_note_uuid_valid(e->d_name) && ended_note__read(a, e->d_name, &err) < 0)
			log_error("how a domain ended is not known any more: %s", err.text);
	if (dir != NULL)
		closedir(dir);
}

void ended_note_remove(const char *uuid)
{
	_cleanup_free_ char *path = str_printf(PATH_ENDED "/%s", uuid);

	unlink(path);
}
