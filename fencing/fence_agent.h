/* Proofs of death. Power off by a fence agent of Debian's fence-agents (or any with its interface): key=value lines on stdin, exit
 * status. off, then status until it says off (exit 2). Already off counts. And by time: a host with a watchdog that it does not feed is
 * reset by it (a device "watchdog", which runs no program). Exactly one callback. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "lib/err.h"
#include "proto/model.pb-c.h"

/* Of a device: for each run of its agent, and for the time from the begin of `off` in which the status is asked again. */
#define FENCE_TIMEOUT_DEFAULT_S 60
#define FENCE_TIMEOUT_MAX_S 3600
/* The device that is the host's own watchdog: it agrees DEADLINE_PROOF_BY_TIME_MS after its turn has begun. */
#define FENCE_WATCHDOG "watchdog"

/* Borrowed during the call only. host: its name, given as plug/port unless the device's params set one. watchdog: what the host's agent
 * has said of it last (Host.watchdog); without one a device "watchdog" fails. */
struct fence_target {
	const char *host, *watchdog;
	Gantry__FenceDevice *const *devices;
	size_t n_devices;
};

struct fence_run;
/* rc 0: the host is proven off, `proof` says by what ("fence_ipmilan at level 1: off, status off, 1.9 s"); by_time: at least one of those
 * that had to agree was a watchdog, so it holds only of a host that was left with its self-fence on. Otherwise err says what failed. */
typedef void (*fence_cb)(void *data, int rc, bool by_time, const char *proof, const struct err *err);
/* Devices are tried by level: all of a level must agree, the next level on failure. Secrets never reach a log or an error
 * text. -ENODEV if there is no device. */
int fence_off(uv_loop_t *loop, const struct fence_target *target, fence_cb cb, void *data, struct fence_run **ret, struct err *err);
/* The same towards on. */
int fence_on(uv_loop_t *loop, const struct fence_target *target, fence_cb cb, void *data, struct fence_run **ret, struct err *err);
/* Asks only, the first that answers: proof is "on" or "off". */
int fence_status(uv_loop_t *loop, const struct fence_target *target, fence_cb cb, void *data, struct fence_run **ret, struct err *err);
void fence_cancel(struct fence_run *run);   /* cb comes with -ECANCELED, from within this call if no agent runs */
