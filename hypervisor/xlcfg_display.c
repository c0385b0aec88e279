/* xl.cfg: the domain's screen: vfb=[], or the top-level keys of a full PC. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xlcfg_reader.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"

#define VNC_DISPLAY_MAX 59635 /* port 5900 + N */

static const char *const top_keys[] = {"vnc", "vnclisten", "vncdisplay", "vncunused", "vncpasswd", "keymap"};

struct screen {
	Gantry__Display *display;
	bool vnc;
};

static int set_number(struct xlcfg_reader *r, const struct xlcfg_pos *pos, const char *key, const char *value,
		      int64_t max, int64_t *ret)
{
	if (!xlcfg__is_number(value, ret) || *ret < 0 || *ret > max)
		return xlcfg__fail_at(pos, r->err, "'%s' is '%.60s', but has to be a number from 0 to %lld", key, value,
				      (long long)max);
	return 0;
}

/* ADDRESS[:N]; an IPv6 address has brackets when N follows. */
static int set_listen(struct xlcfg_reader *r, const struct xlcfg_pos *pos, struct screen *screen, const char *value)
{
	const char *colon = strrchr(value, ':');
	bool bracket = value[0] == '[';
	int64_t number;

	if (colon != NULL && (bracket ? colon > value && colon[-1] == ']' : strchr(value, ':') == colon)) {
		int rc = set_number(r, pos, "vnclisten", colon + 1, VNC_DISPLAY_MAX, &number);
		if (rc < 0)
			return rc;
		screen->display->vnc_display = (uint32_t)number;
	} else {
		colon = value + strlen(value);
	}
	_cleanup_free_ char *address = str_printf("%.*s", (int)(colon - value - 2 * bracket * (colon > value + 1)),
						  value + bracket);
	pb_set_string(&screen->display->vnc_listen, address);
	return 0;
}

/* One key of a screen. *ret_known says whether there is such a key. */
static int set_key(struct xlcfg_reader *r, const struct xlcfg_pos *pos, struct screen *screen, const char *key,
		   const char *value, bool *ret_known)
{
	Gantry__Display *d = screen->display;
	int64_t number = 0;
	int rc = 0;

	*ret_known = true;
	if (strcmp(key, "vnc") == 0) {
		rc = set_number(r, pos, key, value, INT32_MAX, &number);
		screen->vnc = number != 0;
	} else if (strcmp(key, "vncdisplay") == 0) {
		rc = set_number(r, pos, key, value, VNC_DISPLAY_MAX, &number);
		d->vnc_display = (uint32_t)number;
	} else if (strcmp(key, "vncunused") == 0) {
		rc = set_number(r, pos, key, value, INT32_MAX, &number);
		d->vnc_unused = number != 0;
	} else if (strcmp(key, "vnclisten") == 0) {
		rc = set_listen(r, pos, screen, value);
	} else if (strcmp(key, "vncpasswd") == 0) {
		pb_set_string(&d->vnc_password, value);
	} else if (strcmp(key, "keymap") == 0) {
		pb_set_string(&d->keymap, value);
	} else {
		*ret_known = false;
	}
	return rc;
}

static struct screen screen_new(bool vnc)
{
	struct screen screen = {PB_NEW(Gantry__Display, gantry__display__init), vnc};

	screen.display->vnc_unused = true; /* xl's default */
	return screen;
}

/* A screen that nobody can look at is none. Takes the display over. */
static void screen_keep(struct xlcfg_reader *r, struct screen *screen)
{
	if (!screen->vnc) {
		gantry__display__free_unpacked(screen->display, NULL);
		return;
	}
	screen->display->vnc = true;
	PB_APPEND(r->spec, displays, screen->display);
}

/* One `k=v` of a vfb item; offset says where in the item it stands. */
static int vfb_pair(struct xlcfg_reader *r, struct screen *screen, const struct xlcfg_item *item, size_t offset,
		    char *pair)
{
	struct xlcfg_pos pos = xlcfg__pos_inside(item, offset);
	char *value = strchr(pair, '=');
	bool known;

	if (value == NULL)
		return xlcfg__fail_at(&pos, r->err, "vfb: '%.60s' is not of the form key=value", pair);
	*value++ = '\0';
	int rc = set_key(r, &pos, screen, pair, value, &known);
	if (rc == 0 && !known && strcmp(value, "0") != 0)
		xlcfg__warn(r, &pos, "vfb: '%.60s' has no effect on this platform", pair);
	return rc;
}

static int read_vfb(struct xlcfg_reader *r, const struct xlcfg_item *item)
{
	struct screen screen = screen_new(true);
	_cleanup_free_ char *copy = str_dup(item->text);
	char *p = copy;

	while (*p != '\0') {
		p += strspn(p, " \t,");
		char *next = p + strcspn(p, ",");
		bool last = *next == '\0';
		*next = '\0';
		int rc = *p == '\0' ? 0 : vfb_pair(r, &screen, item, (size_t)(p - copy), p);
		if (rc < 0) {
			gantry__display__free_unpacked(screen.display, NULL);
			return rc;
		}
		p = last ? next : next + 1;
	}
	screen_keep(r, &screen);
	return 0;
}

/* An hvm domain has a screen unless vnc=0; a pv domain only with vnc=1. */
static int read_top(struct xlcfg_reader *r, bool hvm)
{
	struct screen screen = screen_new(hvm);

	for (size_t i = 0; i < ARRAY_SIZE(top_keys); i++) {
		const char *value = NULL;
		bool known;
		int rc = xlcfg__read_string(r, top_keys[i], &value);
		if (rc == 0 && value != NULL)
			rc = set_key(r, &xlcfg__find(r, top_keys[i])->items[0].pos, &screen, top_keys[i], value, &known);
		if (rc < 0) {
			gantry__display__free_unpacked(screen.display, NULL);
			return rc;
		}
	}
	screen_keep(r, &screen);
	return 0;
}

static int read_vga(struct xlcfg_reader *r)
{
	static const char *const words[] = {"none", "stdvga", "cirrus", "qxl"};
	static const char *const qemu_words[] = {"none", "std", "cirrus", "qxl"};
	int64_t ram = 0;
	bool stdvga = false;
	int word = -1;
	int rc = xlcfg__read_word(r, "vga", words, ARRAY_SIZE(words), &word);

	if (rc == 0)
		rc = xlcfg__read_bool(r, "stdvga", &stdvga);
	if (rc == 0)
		rc = xlcfg__read_number(r, "videoram", 0, 512, &ram);
	if (rc < 0)
		return rc;
	if (word >= 0 || xlcfg__find(r, "stdvga"))
		pb_set_string(&r->spec->vga, word >= 0 ? qemu_words[word] : stdvga ? "std" : "cirrus");
	r->spec->video_memory_mib = (uint32_t)ram;
	return 0;
}

int xlcfg__read_display(struct xlcfg_reader *r)
{
	const struct xlcfg_setting *vfb = NULL, *top = NULL;
	bool hvm = r->spec->type == GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM;
	int rc = xlcfg__read_list(r, "vfb", &vfb);

	if (rc == 0 && hvm)
		rc = read_vga(r);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < ARRAY_SIZE(top_keys) && top == NULL; i++)
		top = xlcfg__find(r, top_keys[i]);
	bool use_vfb = vfb != NULL && vfb->n_items > 0;
	bool vnc = true;
	if (xlcfg__find(r, "vnc") != NULL && xlcfg__read_bool(r, "vnc", &vnc) < 0)
		return -EINVAL;
	if (use_vfb && top != NULL && hvm && vnc) {
		xlcfg__warn(r, &vfb->pos, "'vfb' has no effect beside '%s': the domain has one screen", top->key);
		use_vfb = false;
	} else if (use_vfb && top != NULL && !hvm) {
		xlcfg__warn(r, &top->pos, "'%s' has no effect beside 'vfb'", top->key);
	}
	if (!use_vfb)
		return read_top(r, hvm);
	for (size_t i = 1; i < vfb->n_items; i++)
		xlcfg__warn(r, &vfb->items[i].pos, "a second vfb has no effect: the domain has one screen");
	return read_vfb(r, &vfb->items[0]);
}
