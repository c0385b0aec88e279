/* Runs a program on the libuv loop with data on its stdin and a deadline, collects its
 * output (bounded). argv only, never a shell. Used for fence agents, qemu-img,
 * corosync-cfgtool. Not for QEMU itself (hypervisor/qemu_process.h). */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "lib/err.h"

struct subprocess;
struct subprocess_result {
	int rc;               /* 0: it ran to its end; -ETIMEDOUT: killed at the deadline; other: could not be run */
	int exit_status;      /* valid if rc is 0; 128 + signal when it was killed by one */
	const char *out, *err_out; /* NUL-terminated, at most 64 KiB each, valid during the callback */
};
typedef void (*subprocess_cb)(void *data, const struct subprocess_result *result);

struct subprocess_options {
	const char *const *argv;   /* argv[0] is searched in PATH */
	const char *const *env;    /* NULL: inherit */
	const char *stdin_text;    /* NULL: /dev/null */
	uint32_t timeout_ms;       /* 0: none. At the deadline: SIGTERM, after 1 s SIGKILL to its process group */
};
/* Fails at once (nothing called back) or calls cb exactly once. *ret may be NULL. */
int subprocess_run(uv_loop_t *loop, const struct subprocess_options *options, subprocess_cb cb, void *data,
		   struct subprocess **ret, struct err *err);
/* Kills it; cb is still called once (rc -ECANCELED). */
void subprocess_cancel(struct subprocess *sp);
