/* Error text for people. Owned by the caller (usually on its stack); a function that
 * fails fills it and returns a negative errno. The text names the thing, the reason and
 * the remedy: "volume 'web1': no pool 'fast'; see 'clusterctl pool list'".
 * Libraries never log a failure: who handles it logs it once. A NULL err is allowed. */
#pragma once

#include <stdarg.h>

#define ERR_TEXT_MAX 512

struct err {
	int status; /* enum Gantry__Status for the user's exit status; 0: derived from the errno */
	char text[ERR_TEXT_MAX];
};

/* Sets the text and returns -errnum. errnum is positive (EINVAL...). */
int err_set(struct err *err, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same with an explicit exit status (Gantry__Status value). */
int err_set_status(struct err *err, int errnum, int status, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Puts "prefix: " before the text that is there. Returns rc unchanged. */
int err_prefix(struct err *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The exit status for an error: err->status if set, else the mapping of -rc (ENOENT 105, EEXIST 108, ...). */
int err_status(const struct err *err, int rc);
