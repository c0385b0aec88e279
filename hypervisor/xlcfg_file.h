/* An xl.cfg file as a list of settings, the last assignment of each key standing; `+=` is resolved. Internal to
 * the xl.cfg reader. Pure. Limits: LIMIT_XLCFG_BYTES, LIMIT_XLCFG_SETTINGS, LIMIT_XLCFG_ITEMS, LIMIT_XLCFG_DEPTH. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "hypervisor/xlcfg_lex.h"

struct xlcfg_item {
	struct xlcfg_pos pos;
	char *text; /* NULL: a list inside the list, which no key takes */
};

struct xlcfg_setting {
	char *key;
	struct xlcfg_pos pos; /* of the key */
	bool is_list;
	struct xlcfg_item *items; /* of a single value: exactly one */
	size_t n_items;
};

struct xlcfg_file {
	struct xlcfg_setting *settings;
	size_t n_settings;
	char **sources; /* owned names that places point to */
	size_t n_sources;
};

/* Reads text behind what is there. The source's name is copied. */
int xlcfg__file_add(struct xlcfg_file *file, const char *source, const char *text, size_t len, struct err *err);
const struct xlcfg_setting *xlcfg__file_find(const struct xlcfg_file *file, const char *key);
void xlcfg__file_free(struct xlcfg_file *file);
