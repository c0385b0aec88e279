/* Power off by a fence agent of Debian's fence-agents (or any with its interface): key=value lines on stdin, exit
 * status. off, then status until it says off (exit 2). Already off counts. Exactly one callback. */
#pragma once

#include <uv.h>

#include "lib/err.h"
#include "proto/model.pb-c.h"

/* Of a device: for each run of its agent, and for the time from the begin of `off` in which the status is asked again. */
#define FENCE_TIMEOUT_DEFAULT_S 60
#define FENCE_TIMEOUT_MAX_S 3600

struct fence_run;
/* rc 0: the host is proven off, `proof` says by what ("fence_ipmilan at level 1: off, status off, 1.9 s"). Otherwise err says what failed. */
typedef void (*fence_cb)(void *data, int rc, const char *proof, const struct err *err);
/* Devices are tried by level: all of a level must agree, the next level on failure. host: name, given as plug/port unless the
 * device's params set one. Secrets never reach a log or an error text. -ENODEV if there is no device. */
int fence_off(uv_loop_t *loop, const char *host, Gantry__FenceDevice *const *devices, size_t n, fence_cb cb, void *data, struct fence_run **ret, struct err *err);
/* Asks only: proof is "on" or "off". */
int fence_status(uv_loop_t *loop, const char *host, const Gantry__FenceDevice *device, fence_cb cb, void *data, struct fence_run **ret, struct err *err);
void fence_cancel(struct fence_run *run);   /* cb comes with -ECANCELED, from within this call if no agent runs */
