/* What the parts of the xl.cfg reader share: the file, the specification that is being made, warnings. Internal
 * to the reader. Pure. Values that are handed out are borrowed from the file. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/xlcfg.h"
#include "hypervisor/xlcfg_file.h"
#include "proto/domain.pb-c.h"

struct xlcfg_reader {
	struct xlcfg_file file;
	Gantry__DomainSpec *spec;
	struct xlcfg_warnings *warnings; /* may be NULL */
	size_t warnings_dropped;
	struct err *err;
};

/* Where something inside a quoted item stands: offset bytes behind its opening quote. */
struct xlcfg_pos xlcfg__pos_inside(const struct xlcfg_item *item, size_t offset);
void xlcfg__warn(struct xlcfg_reader *r, const struct xlcfg_pos *pos, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
const struct xlcfg_setting *xlcfg__find(const struct xlcfg_reader *r, const char *key);

/* The readers leave *ret as it is when the key is not set. A list where one value belongs is an error. */
int xlcfg__read_string(struct xlcfg_reader *r, const char *key, const char **ret);
/* Numbers may be quoted. One that is none is warned of and ignored, as xl does; one out of bounds is an error. */
int xlcfg__read_number(struct xlcfg_reader *r, const char *key, int64_t min, int64_t max, int64_t *ret);
/* A number, true unless 0. Anything else is an error. */
int xlcfg__read_bool(struct xlcfg_reader *r, const char *key, bool *ret);
/* A list of texts; a single value is an error. */
int xlcfg__read_list(struct xlcfg_reader *r, const char *key, const struct xlcfg_setting **ret);
/* Index of the value in words, or an error that lists them. */
int xlcfg__read_word(struct xlcfg_reader *r, const char *key, const char *const *words, size_t n_words, int *ret);
/* strtol's idea of a number, base 0, the whole text. */
bool xlcfg__is_number(const char *text, int64_t *ret);

/* ---- the parts, in the order in which they are called ---- */
/* Warns of keys that are unknown or have no effect here. */
int xlcfg__check_keys(struct xlcfg_reader *r);
int xlcfg__read_identity(struct xlcfg_reader *r);
int xlcfg__read_sizes(struct xlcfg_reader *r);
int xlcfg__read_cpus(struct xlcfg_reader *r);
int xlcfg__read_boot(struct xlcfg_reader *r);
int xlcfg__read_lifecycle(struct xlcfg_reader *r);
int xlcfg__read_machine(struct xlcfg_reader *r);
int xlcfg__read_display(struct xlcfg_reader *r);
int xlcfg__read_disks(struct xlcfg_reader *r);
int xlcfg__read_nics(struct xlcfg_reader *r);
/* Makes root=/dev/xvda1 of a paravirtual guest's command line name the virtio disk that it will be. */
void xlcfg__map_root(struct xlcfg_reader *r);
