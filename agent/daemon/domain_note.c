#include "agent/daemon/domain_note.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "hypervisor/qemu_args.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "lib/paths.h"
#include "proto/pbjson.h"

static const char *const stage_words[] = {
    [NOTE_STARTING] = "starting", [NOTE_RUNNING] = "running",	[NOTE_INCOMING] = "incoming",
    [NOTE_COMPLETE] = "complete", [NOTE_OUTGOING] = "outgoing",
};

bool domain_note_uuid_valid(const char *uuid)
{
	if (uuid == NULL || strlen(uuid) != 36)
		return false;
	for (const char *c = uuid; *c != '\0'; c++)
		if (!isxdigit((unsigned char)*c) && *c != '-')
			return false;
	return true;
}

int domain_note_make_dir(const char *uuid, struct err *err)
{
	_cleanup_free_ char *dir = agent_run_dir(uuid);

	return path_make_dirs(dir, 0700, err);
}

void domain_note_remove_dir(const char *uuid)
{
	_cleanup_free_ char *path = agent_run_dir(uuid);
	DIR *dir = opendir(path);
	struct dirent *e;

	if (dir == NULL)
		return;
	while ((e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
	rmdir(path);
}

int domain_note_write(struct domain *d, enum note_stage stage, struct err *err)
{
	_cleanup_free_ char *path = str_printf(PATH_DOMAINS "/%s/state.json", d->uuid);
	json_t *taps = json_array(), *note;
	int rc;

	for (char **t = d->taps; t != NULL && *t != NULL; t++)
		json_array_append_new(taps, json_string(*t));
	note = json_pack("{s:s, s:s, s:I, s:s, s:I, s:b, s:b, s:I, s:o, s:o}", "uuid", d->uuid, "name", d->name,
			 "generation", (json_int_t)d->generation, "stage", stage_words[stage], "job",
			 (json_int_t)d->job_id, "ha", d->ha, "left", d->left, "running_since_ms", (json_int_t)d->running_since_ms,
			 "taps", taps, "spec", pbjson_from_message(&d->spec->base, false));
	if (note == NULL)
		return err_set(err, EINVAL, "domain '%s': its note cannot be put into JSON", d->name);
	char *text = json_dumps(note, JSON_INDENT(1));
	json_decref(note);
	rc = text != NULL ? atomic_file_write(path, text, strlen(text), 0600, err)
			  : err_set(err, ENOMEM, "domain '%s': its note cannot be put into JSON", d->name);
	free(text);
	return rc;
}

static int domain_note__parse(json_t *json, const char *path, struct domain_note *note, struct err *err)
{
	json_t *spec = NULL, *taps = NULL, *tap;
	json_int_t generation, job, since;
	const char *stage;
	json_error_t at;
	size_t i;
	int ha, left = 0, rc;

	if (json_unpack_ex(json, &at, 0, "{s:I, s:s, s:I, s:b, s?b, s:I, s:o, s:o}", "generation", &generation, "stage",
			   &stage, "job", &job, "ha", &ha, "left", &left, "running_since_ms", &since, "taps", &taps,
			   "spec", &spec) != 0)
		return err_set(err, EINVAL, "%s: %s", path, at.text);
	note->generation = (uint64_t)generation;
	note->job_id = (uint64_t)job;
	note->running_since_ms = (uint64_t)since;
	note->ha = ha;
	note->left = left;
	for (i = 0; i < ARRAY_SIZE(stage_words); i++)
		if (strcmp(stage, stage_words[i]) == 0)
			break;
	if (i == ARRAY_SIZE(stage_words))
		return err_set(err, EINVAL, "%s: unknown stage '%s'", path, stage);
	note->stage = (enum note_stage)i;
	note->taps = mem_alloc((json_array_size(taps) + 1) * sizeof(char *));
	json_array_foreach(taps, i, tap) note->taps[i] = str_dup(json_is_string(tap) ? json_string_value(tap) : "");
	rc = pbjson_to_message(spec, &gantry__domain_spec__descriptor, (ProtobufCMessage **)&note->spec, err);
	return rc < 0 ? err_prefix(err, rc, "%s", path) : 0;
}

int domain_note_read(const char *uuid, struct domain_note *ret, struct err *err)
{
	_cleanup_free_ char *path = str_printf(PATH_DOMAINS "/%s/state.json", uuid);
	struct domain_note note = {0};
	struct buf text = {0};
	json_error_t at;
	int rc;

	rc = atomic_file_read(path, LIMIT_FRAME_BYTES, &text, err);
	if (rc < 0)
		return rc;
	json_t *json = json_loadb((char *)text.data, text.len, 0, &at);
	buf_free(&text);
	if (json == NULL)
		return err_set(err, EINVAL, "%s: line %d: %s", path, at.line, at.text);
	rc = domain_note__parse(json, path, &note, err);
	json_decref(json);
	if (rc == 0 && (strcmp(note.spec->uuid, uuid) != 0 || note.spec->name[0] == '\0'))
		rc = err_set(err, EINVAL, "%s: is the note of another domain", path);
	if (rc < 0) {
		domain_note_free(&note);
		return rc;
	}
	*ret = note;
	return 0;
}

void domain_note_free(struct domain_note *note)
{
	if (note->spec != NULL)
		gantry__domain_spec__free_unpacked(note->spec, NULL);
	strv_free(note->taps);
	*note = (struct domain_note){0};
}
