#include "lib/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The numbers of enum Status in proto/model.proto, which this folder may not include. A unit test
 * compares the two. */
enum {
	EXIT_STATUS_FAILED = 1,
	EXIT_STATUS_USAGE = 64,
	EXIT_STATUS_BAD_DATA = 65,
	EXIT_STATUS_UNAVAILABLE = 69,
	EXIT_STATUS_RETRY = 75,
	EXIT_STATUS_PERMISSION = 77,
	EXIT_STATUS_NO_SUCH = 105,
	EXIT_STATUS_EXISTS = 108,
	EXIT_STATUS_TIMEOUT = 124,
};

static void err__set(struct err *err, int status, const char *fmt, va_list args)
{
	/* By way of a copy: an argument may be the old text itself. */
	char text[ERR_TEXT_MAX];

	if (!err)
		return;
	vsnprintf(text, sizeof(text), fmt, args);
	memcpy(err->text, text, sizeof(text));
	err->status = status;
}

int err_set(struct err *err, int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	err__set(err, 0, fmt, args);
	va_end(args);
	return -errnum;
}

int err_set_status(struct err *err, int errnum, int status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	err__set(err, status, fmt, args);
	va_end(args);
	return -errnum;
}

int err_prefix(struct err *err, int rc, const char *fmt, ...)
{
	char text[2 * ERR_TEXT_MAX + 2];
	va_list args;

	if (!err)
		return rc;
	va_start(args, fmt);
	vsnprintf(text, ERR_TEXT_MAX, fmt, args);
	va_end(args);
	strcat(text, ": ");
	strcat(text, err->text);
	text[ERR_TEXT_MAX - 1] = '\0';
	memcpy(err->text, text, ERR_TEXT_MAX);
	return rc;
}

int err_status(const struct err *err, int rc)
{
	if (err && err->status)
		return err->status;
	switch (rc < 0 ? -rc : rc) {
	case 0:
		return 0;
	case ENOENT:
		return EXIT_STATUS_NO_SUCH;
	case EEXIST:
		return EXIT_STATUS_EXISTS;
	case EINVAL:
		return EXIT_STATUS_USAGE;
	case EBADMSG:
	case EPROTO:
	case EILSEQ:
		return EXIT_STATUS_BAD_DATA;
	case EACCES:
	case EPERM:
		return EXIT_STATUS_PERMISSION;
	case EAGAIN:
	case EBUSY:
		return EXIT_STATUS_RETRY;
	case ETIMEDOUT:
		return EXIT_STATUS_TIMEOUT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENOTCONN:
	case EPIPE:
		return EXIT_STATUS_UNAVAILABLE;
	default:
		return EXIT_STATUS_FAILED;
	}
}
