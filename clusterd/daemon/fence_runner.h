/* Fence runs of the leader: one at a time for a host, by the devices that the model has for it. The devices are copied,
 * as the model goes on meanwhile. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "lib/err.h"
#include "proto/model.pb-c.h"

struct fence_runner;

/* rc 0: text is the proof, by_time as in fence_cb (fencing/fence_agent.h); else the failure. Not called for runs that were cancelled. */
typedef void (*fence_runner_cb)(void *data, const char *host, int rc, bool by_time, const char *text);

struct fence_runner *fence_runner_new(uv_loop_t *loop, fence_runner_cb cb, void *data);
/* Calls back later in every case, also where it cannot be begun (no device). Nothing if one runs already. */
void fence_runner_start(struct fence_runner *fr, const Gantry__Host *host);
/* This node does not lead any more: what runs is called off as far as it can be. */
void fence_runner_cancel_all(struct fence_runner *fr);
/* Cancels; frees when the last run has ended. */
void fence_runner_free(struct fence_runner *fr);
