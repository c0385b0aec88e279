#include "hypervisor/xlcfg_disk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/vdev.h"
#include "hypervisor/xlcfg_reader.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

/* What has been said so far. Strings: NULL until set; a slot that is set is skipped by the positional form. */
struct disk_state {
	const char *text, *at; /* all of it; the parameter in hand */
	char *target, *vdev, *script, *backend, *backendtype;
	bool have_format, have_access, have_devtype, have_discard;
	Gantry__DiskFormat format;
	bool readonly, cdrom, discard, direct_io_safe;
	bool had_prefix; /* an outdated prefix: then the format slot is skipped, and the target is a path */
	xlcfg_note_fn note;
	void *data;
	struct err *err;
};

static int fail(struct disk_state *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct disk_state *s, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return err_set_status(s->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "disk: %s", text);
}

static void note(struct disk_state *s, const char *text)
{
	if (s->note != NULL)
		s->note(s->data, (size_t)(s->at - s->text), text);
}

/* Setting a text twice is an error, as for xl; an empty one may be replaced. */
static int set_string(struct disk_state *s, const char *what, char **field, const char *value, size_t len)
{
	if (*field != NULL && **field != '\0')
		return fail(s, "'%s' is given twice: '%.60s' and '%.*s'", what, *field, (int)(len > 60 ? 60 : len), value);
	free(*field);
	*field = str_printf("%.*s", (int)len, value);
	return 0;
}

static int set_flag(struct disk_state *s, const char *what, bool *have, bool *field, bool value)
{
	if (*have && *field != value)
		return fail(s, "'%s' is given twice, with different meanings", what);
	*have = true;
	*field = value;
	return 0;
}

static int set_format(struct disk_state *s, const char *value)
{
	static const struct {
		const char *word;
		Gantry__DiskFormat format;
	} words[] = {{"raw", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW},   {"", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW},
		     {"qcow2", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2}, {"qcow", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW},
		     {"vhd", GANTRY__DISK_FORMAT__DISK_FORMAT_VHD},   {"qed", GANTRY__DISK_FORMAT__DISK_FORMAT_QED},
		     {"empty", GANTRY__DISK_FORMAT__DISK_FORMAT_EMPTY}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(words[i].word, value) != 0)
			continue;
		if (s->have_format && s->format != words[i].format)
			return fail(s, "the format is given twice, with different meanings");
		s->have_format = true;
		s->format = words[i].format;
		return 0;
	}
	return fail(s, "unknown format '%.60s'; known are raw, qcow2, qcow, vhd, qed, empty", value);
}

static int set_access(struct disk_state *s, const char *value)
{
	bool readonly = strcmp(value, "r") == 0 || strcmp(value, "ro") == 0;

	if (!readonly && strcmp(value, "") != 0 && strcmp(value, "w") != 0 && strcmp(value, "rw") != 0)
		return fail(s, "unknown access '%.60s'; known are r, ro, w, rw", value);
	return set_flag(s, "access", &s->have_access, &s->readonly, readonly);
}

static int set_devtype(struct disk_state *s, const char *value)
{
	bool cdrom = strcmp(value, "cdrom") == 0;

	if (!cdrom && strcmp(value, "disk") != 0)
		return fail(s, "unknown devtype '%.60s'; known are cdrom, disk", value);
	return set_flag(s, "devtype", &s->have_devtype, &s->cdrom, cdrom);
}

static int set_backendtype(struct disk_state *s, const char *value)
{
	static const char *const words[] = {"", "phy", "tap", "qdisk", "standalone"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(words[i], value) == 0)
			return set_string(s, "backendtype", &s->backendtype, value, strlen(value));
	return fail(s, "unknown backendtype '%.60s'; known are phy, tap, qdisk", value);
}

static int set_script(struct disk_state *s, const char *value)
{
	note(s, "block scripts are not run: the target has to be there on the host");
	return set_string(s, "script", &s->script, value, strlen(value));
}

/* key=value up to the comma. */
static int take_keyed(struct disk_state *s, const char *key, const char *value)
{
	if (strcmp(key, "format") == 0)
		return set_format(s, value);
	if (strcmp(key, "access") == 0)
		return set_access(s, value);
	if (strcmp(key, "devtype") == 0)
		return set_devtype(s, value);
	if (strcmp(key, "backendtype") == 0)
		return set_backendtype(s, value);
	if (strcmp(key, "script") == 0)
		return set_script(s, value);
	if (strcmp(key, "vdev") == 0)
		return set_string(s, "vdev", &s->vdev, value, strlen(value));
	if (strcmp(key, "backend") == 0) {
		if (strcmp(value, "0") != 0 && strcmp(value, "Domain-0") != 0)
			note(s, "'backend' has no effect: the host itself serves every disk");
		return set_string(s, "backend", &s->backend, value, strlen(value));
	}
	if (strcmp(key, "specification") == 0) {
		note(s, "'specification' has no effect on this platform");
		return 0;
	}
	return fail(s, "unknown parameter '%.60s'; a target with '=' in it is written last, as target=...", key);
}

/* A word that stands for itself. *ret_taken: it was one. */
static int take_flag(struct disk_state *s, const char *word, bool *ret_taken)
{
	*ret_taken = true;
	if (strcmp(word, "cdrom") == 0)
		return set_devtype(s, "cdrom");
	if (strcmp(word, "discard") == 0 || strcmp(word, "no-discard") == 0)
		return set_flag(s, "discard", &s->have_discard, &s->discard, word[0] == 'd');
	if (strcmp(word, "direct-io-safe") == 0)
		s->direct_io_safe = true;
	else if (strcmp(word, "trusted") != 0 && strcmp(word, "untrusted") != 0)
		*ret_taken = false;
	return 0;
}

/* Outdated prefixes of the older tools: "file:", "tap:aio:", "phy:", "qcow2:", "iscsi:". Returns how many bytes
 * were taken, 0 if there is none. */
static int take_prefix(struct disk_state *s)
{
	static const char *const formats[] = {"raw", "qcow", "qcow2", "vhd"};
	static const char *const scripts[] = {"iscsi", "nbd", "enbd", "drbd"};
	static const char *const dropped[] = {"tap", "tap2", "tapdisk", "aio", "ioemu", "file", "phy"};
	size_t len = strspn(s->at, "abcdefghijklmnopqrstuvwxyz0123456789");
	char word[16] = "";
	int rc;

	if (len == 0 || s->at[len] != ':' || s->at[0] < 'a')
		return 0;
	if (len < sizeof(word))
		memcpy(word, s->at, len);
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (strcmp(word, formats[i]) == 0) {
			s->had_prefix = true;
			rc = set_format(s, word);
			return rc < 0 ? rc : (int)len + 1;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		if (strcmp(word, scripts[i]) == 0) {
			_cleanup_free_ char *script = str_printf("block-%s", word);
			s->had_prefix = true;
			rc = set_script(s, script);
			return rc < 0 ? rc : (int)len + 1;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(dropped); i++) {
		if (strcmp(word, dropped[i]) == 0) {
			s->had_prefix = true;
			return (int)len + 1;
		}
	}
	char next = s->at[len + 1];
	if ((next >= 'a' && next <= 'z') || (next >= '0' && next <= '9'))
		return 0;
	return fail(s, "unknown prefix '%.*s:'; a volume of a pool is written as POOL/VOLUME", (int)(len > 40 ? 40 : len),
		    s->at);
}

/* vdev, or vdev:cdrom, or vdev:disk */
static int take_vdev(struct disk_state *s, const char *value)
{
	const char *colon = strchr(value, ':');
	size_t len = colon ? (size_t)(colon - value) : strlen(value);
	int rc = set_string(s, "vdev", &s->vdev, value, len);

	return rc == 0 && colon != NULL ? set_devtype(s, colon + 1) : rc;
}

/* By place: target, format, vdev, access; slots that are set are skipped. */
static int take_positional(struct disk_state *s, const char *value)
{
	if (s->target == NULL)
		return set_string(s, "target", &s->target, value, strlen(value));
	if (!s->have_format && !s->had_prefix) {
		if (s->target[0] != '\0' || strchr(value, ':') == NULL)
			return set_format(s, value);
		/* ",hdc:cdrom,r": an empty drive, written by the older tools without its format. */
		int rc = set_format(s, "empty");
		return rc < 0 ? rc : take_vdev(s, value);
	}
	if (s->vdev == NULL)
		return take_vdev(s, value);
	if (!s->have_access)
		return set_access(s, value);
	return fail(s, "'%.60s' is too much: the places are target, format, vdev, access", value);
}

/* One parameter at s->at; moves behind it and its comma. */
static int take_parameter(struct disk_state *s)
{
	bool taken = false;
	int rc = take_prefix(s);

	if (rc != 0) {
		s->at += rc > 0 ? rc : 0;
		return rc < 0 ? rc : 0;
	}
	if (strncmp(s->at, "target=", 7) == 0) {
		size_t len = strlen(s->at) - 7;
		if (len > 0 && s->at[7 + len - 1] == ',')
			len--;
		rc = set_string(s, "target", &s->target, s->at + 7, len);
		s->at += rc < 0 ? 0 : strlen(s->at);
		return rc;
	}
	size_t len = strcspn(s->at, ",");
	_cleanup_free_ char *word = str_printf("%.*s", (int)len, s->at);
	char *equals = strchr(word, '=');
	if (equals != NULL) {
		*equals = '\0';
		rc = take_keyed(s, word, equals + 1);
	} else {
		rc = take_flag(s, word, &taken);
		if (rc == 0 && !taken)
			rc = take_positional(s, word);
	}
	if (rc == 0)
		s->at += len + (s->at[len] == ',');
	return rc;
}

static bool is_name(const char *p, size_t len)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-";

	return len > 0 && p[0] != '.' && p[0] != '-' && strspn(p, allowed) >= len;
}

/* POOL/VOLUME; a path; something with a scheme; or, as for xl, a name below /dev. */
static void place_target(struct disk_state *s, Gantry__Disk *disk)
{
	const char *target = s->target;
	const char *slash = strchr(target, '/');
	bool is_path = s->had_prefix || s->script || (s->backendtype && strcmp(s->backendtype, "phy") == 0);

	if (target[0] == '/' || s->script != NULL) {
		pb_set_string(&disk->path, target);
	} else if (strchr(target, ':') != NULL && strcspn(target, ":") < strcspn(target, "/")) {
		pb_set_string(&disk->path, target);
	} else if (!is_path && slash != NULL && strchr(slash + 1, '/') == NULL &&
		   is_name(target, (size_t)(slash - target)) && is_name(slash + 1, strlen(slash + 1))) {
		_cleanup_free_ char *pool = str_printf("%.*s", (int)(slash - target), target);
		pb_set_string(&disk->pool, pool);
		pb_set_string(&disk->volume, slash + 1);
	} else {
		_cleanup_free_ char *path = str_printf("/dev/%s", target);
		_cleanup_free_ char *text = str_printf("a target that does not begin with '/' is below /dev: '%s'", path);
		s->at = s->text;
		if (!s->had_prefix)
			note(s, text);
		pb_set_string(&disk->path, path);
	}
}

static int disk_finish(struct disk_state *s, Gantry__Disk **ret)
{
	struct vdev vdev;
	bool has_target = s->target != NULL && s->target[0] != '\0';
	bool empty = s->have_format && s->format == GANTRY__DISK_FORMAT__DISK_FORMAT_EMPTY;

	if (s->vdev == NULL || s->vdev[0] == '\0')
		return fail(s, "no vdev: say as which disk the guest sees it, e.g. vdev=xvda");
	if (vdev_parse(s->vdev, &vdev) < 0)
		return fail(s, "vdev '%.60s' is no disk's name, such as xvda, sdb1 or hdc", s->vdev);
	if (!has_target && !s->cdrom)
		return fail(s, "'%.60s' has no target; only a cdrom may be empty", s->vdev);
	if (has_target && empty)
		return fail(s, "'%.60s' has format empty and the target '%.60s'; one of them has to go", s->vdev, s->target);
	Gantry__Disk *disk = PB_NEW(Gantry__Disk, gantry__disk__init);
	pb_set_string(&disk->vdev, s->vdev);
	pb_set_string(&disk->script, s->script);
	pb_set_string(&disk->backend, s->backend);
	pb_set_string(&disk->backendtype, s->backendtype);
	disk->cdrom = s->cdrom;
	disk->readonly = s->readonly || s->cdrom;
	disk->discard = s->discard;
	disk->direct_io_safe = s->direct_io_safe;
	disk->empty = !has_target;
	disk->format = has_target ? s->format : GANTRY__DISK_FORMAT__DISK_FORMAT_EMPTY;
	if (has_target)
		place_target(s, disk);
	*ret = disk;
	return 0;
}

int xlcfg_disk_parse(const char *text, Gantry__Disk **ret, size_t *ret_offset, xlcfg_note_fn note_fn, void *data,
		     struct err *err)
{
	struct disk_state s = {.text = text, .at = text, .note = note_fn, .data = data, .err = err};
	int rc = 0;

	s.at += strspn(s.at, " \t\n");
	while (rc == 0 && *s.at != '\0') {
		rc = take_parameter(&s);
		if (rc == 0)
			s.at += strspn(s.at, " \t\n");
	}
	if (rc == 0) {
		s.at = text;
		rc = disk_finish(&s, ret);
	}
	if (rc < 0 && ret_offset != NULL)
		*ret_offset = (size_t)(s.at - text);
	free(s.target);
	free(s.vdev);
	free(s.script);
	free(s.backend);
	free(s.backendtype);
	return rc;
}

struct disk_note {
	struct xlcfg_reader *reader;
	const struct xlcfg_item *item;
};

static void warn_of_note(void *data, size_t offset, const char *text)
{
	struct disk_note *n = data;
	struct xlcfg_pos pos = xlcfg__pos_inside(n->item, offset);

	xlcfg__warn(n->reader, &pos, "disk: %s", text);
}

int xlcfg__read_disks(struct xlcfg_reader *r)
{
	const struct xlcfg_setting *setting = NULL;
	int rc = xlcfg__read_list(r, "disk", &setting);

	for (size_t i = 0; rc == 0 && setting != NULL && i < setting->n_items; i++) {
		struct disk_note n = {r, &setting->items[i]};
		Gantry__Disk *disk = NULL;
		struct err err = {0};
		size_t offset = 0;

		rc = xlcfg_disk_parse(setting->items[i].text, &disk, &offset, warn_of_note, &n, &err);
		if (rc < 0) {
			struct xlcfg_pos pos = xlcfg__pos_inside(n.item, offset);
			return xlcfg__fail_at(&pos, r->err, "%s", err.text);
		}
		PB_APPEND(r->spec, disks, disk);
	}
	return rc;
}
